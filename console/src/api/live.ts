import { useEffect, useState } from "react";
import { useQueryClient, type QueryClient } from "@tanstack/react-query";
import type { ClusterEvent } from "./client.ts";

export type LiveState = "live" | "waiting";

/** Of a burst of events, such as those of a drain, what is shown is asked for again this often at most. */
const TOGETHER_MS = 1_000;
/** For what changes without an event, such as loads. */
const ANYWAY_MS = 10_000;
const TRY_AGAIN_MS = 3_000;

/** What may be other than it was, after an event. */
const CHANGING = new Set<unknown>(["status", "problems", "tenants", "tenant", "shards", "shard", "fleet", "events"]);

/**
 * Follows the events, and has what is shown asked for again after one. A tab that nobody sees holds no connection, of which browsers have six for
 * all tabs; what it missed it hears when it is seen again.
 */
export function useLive(): LiveState {
  const client = useQueryClient();
  const [state, setState] = useState<LiveState>("waiting");
  useEffect(() => follow(client, setState), [client]);
  return state;
}

function follow(client: QueryClient, onState: (state: LiveState) => void): () => void {
  let source: EventSource | undefined;
  let retry: ReturnType<typeof setTimeout> | undefined;
  let last: number | undefined;
  const refresh = together(
    () => void client.invalidateQueries({ predicate: ({ queryKey }) => CHANGING.has(queryKey[0]) }),
  );
  const close = () => {
    source?.close();
    source = undefined;
    clearTimeout(retry);
  };
  const open = () => {
    if (document.hidden || source) return;
    const opened = new EventSource(`/v1/events?follow=true${last === undefined ? "" : `&after=${last}`}`);
    source = opened;
    opened.addEventListener("open", () => {
      onState("live");
      refresh();
    });
    opened.addEventListener("message", ({ data }: MessageEvent<string>) => {
      last = (JSON.parse(data) as ClusterEvent).id;
      refresh();
    });
    opened.addEventListener("error", () => {
      onState("waiting");
      refresh();
      // Refused rather than cut off: the browser gives up, and we do not.
      if (opened.readyState !== EventSource.CLOSED) return;
      close();
      void client.invalidateQueries({ queryKey: ["session"] });
      retry = setTimeout(open, TRY_AGAIN_MS);
    });
  };
  const onVisibility = () => (document.hidden ? close() : open());
  const timer = setInterval(() => !document.hidden && refresh(), ANYWAY_MS);
  document.addEventListener("visibilitychange", onVisibility);
  open();
  return () => {
    close();
    clearInterval(timer);
    document.removeEventListener("visibilitychange", onVisibility);
  };
}

function together(act: () => void): () => void {
  let waiting: ReturnType<typeof setTimeout> | undefined;
  return () => {
    waiting ??= setTimeout(() => {
      waiting = undefined;
      act();
    }, TOGETHER_MS);
  };
}
