import type { ClusterEvent } from "../../model/event.ts";
import type { Store } from "../../ports/store.ts";

const PAGE = 1000;

/** Events as they are and, with `follow`, as they come; none is left out or doubled between the two. */
export async function* followEvents(
  store: Store,
  options: { after?: number; object?: string; follow?: boolean; signal?: AbortSignal },
): AsyncGenerator<ClusterEvent, void, undefined> {
  const { object, follow, signal } = options;
  const news: ClusterEvent[] = [];
  let wake = () => {};
  const unwatch = store.watchEvents((event) => {
    if (object === undefined || event.object === object) news.push(event);
    wake();
  });
  const onAbort = () => wake();
  signal?.addEventListener("abort", onAbort);
  try {
    let last = options.after ?? 0;
    for (const event of await store.listEvents({ after: last, object, limit: PAGE })) {
      last = event.id;
      yield event;
    }
    while (follow && !signal?.aborted) {
      const event = news.shift();
      if (!event) await new Promise<void>((resolve) => (wake = resolve));
      else if (event.id > last) {
        last = event.id;
        yield event;
      }
    }
  } finally {
    unwatch();
    signal?.removeEventListener("abort", onAbort);
  }
}
