import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { Log, type KubeConfig, type LogOptions, type V1Pod } from "@kubernetes/client-node";
import { linesOf as linesIn } from "../../../logging/lines.ts";
import { CONTAINER } from "./manifests.ts";

/** Until a container that ended has been started again. */
const AGAIN_MS = 1_000;

export interface PodLogOptions {
  namespace: string;
  tail?: number;
  follow?: boolean;
  signal?: AbortSignal;
  /** The pod as it is now. */
  pod(): V1Pod | undefined;
}

/** Lines of a shard's log: those of the process before this one, if there was one in the same pod, then this one's. */
export async function* podLog(config: KubeConfig, options: PodLogOptions): AsyncGenerator<string, void, undefined> {
  const { tail, follow, signal } = options;
  let since = new Date();
  let seen = runOf(options.pod());
  if (tail !== 0 && seen) {
    const tailLines = tail;
    const current = await collect(linesOf(config, options, { tailLines }));
    const missing = tail === undefined ? undefined : tail - current.length;
    if (seen.restarts > 0 && (missing === undefined || missing > 0))
      yield* await collect(linesOf(config, options, { previous: true, tailLines: missing }));
    yield* current;
  }
  while (follow && !signal?.aborted) {
    const now = runOf(options.pod());
    // Another run is read from its beginning, this one from where it was left.
    const sameRun = now?.id === seen?.id;
    const from: LogOptions = sameRun ? { sinceTime: since.toISOString() } : {};
    seen = now ?? seen;
    if (now) {
      for await (const line of linesOf(config, options, { ...from, follow: true })) {
        since = new Date();
        yield line;
      }
    }
    await sleep(AGAIN_MS, undefined, { signal }).catch(() => {});
  }
}

/** One run of the container: another pod, or another start in the same one, is another run. */
function runOf(pod: V1Pod | undefined): { id: string; restarts: number } | undefined {
  const container = pod?.status?.containerStatuses?.find(({ name }) => name === CONTAINER);
  if (!container) return undefined;
  return { id: `${pod?.metadata?.uid}/${container.restartCount}`, restarts: container.restartCount };
}

/** Ends quietly where there is no log (yet, or any more): the container has not been started, or the node is away. */
async function* linesOf(
  config: KubeConfig,
  { namespace, signal, pod }: PodLogOptions,
  options: LogOptions,
): AsyncGenerator<string, void, undefined> {
  const name = pod()?.metadata?.name;
  if (name === undefined || signal?.aborted) return;
  const stream = new PassThrough();
  // The client pipes its response into ours without looking after the response's errors: a connection that breaks, or is
  // aborted, would end this process.
  stream.once("pipe", (response) => response.once("error", () => stream.end()));
  let request: AbortController;
  try {
    request = await new Log(config).log(namespace, name, CONTAINER, stream, options);
  } catch {
    return;
  }
  const abort = () => {
    request.abort();
    stream.end();
  };
  signal?.addEventListener("abort", abort, { once: true });
  try {
    yield* linesIn(stream);
  } finally {
    signal?.removeEventListener("abort", abort);
    abort();
  }
}

async function collect(lines: AsyncIterable<string>): Promise<string[]> {
  const all: string[] = [];
  for await (const line of lines) all.push(line);
  return all;
}
