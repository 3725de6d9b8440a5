import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as delay } from "node:timers/promises";
import type { FastifyReply } from "fastify";
import type { Logger } from "pino";

export interface LineStream {
  contentType: string;
  /** Makes the lines (without line ends); called once. The signal aborts when the client went away, or the API closes. */
  lines: (signal: AbortSignal) => AsyncIterable<string>;
}

/** Sends lines as they come, for as long as they come, the client stays and the API runs. */
export type SendLines = (reply: FastifyReply, stream: LineStream) => Promise<void>;

/** A source that fails within this time fails the request; what fails later can only break the stream off. */
const FIRST_LINE_MS = 200;

/** A stream lives for hours: so often it is looked whether its reader may still read it. */
const LOOK_AGAIN_MS = 5_000;

/** @param stopping aborts when the API closes; its streams then end as if they were complete */
export function lineSender(stopping: AbortSignal, logger: Logger, lookAgainMs = LOOK_AGAIN_MS): SendLines {
  return async (reply, { contentType, lines }) => {
    const gone = new AbortController();
    const response = reply.raw;
    response.once("close", () => gone.abort());
    const signal = AbortSignal.any([gone.signal, stopping]);
    const begun = await begin(lines(signal));
    // Fastify sends the headers with the first line, which may be hours away; so the response is written here.
    reply.hijack();
    // A stream's connection is not used again: kept alive, it would hold up the end of the API.
    response.writeHead(200, { "content-type": contentType, "cache-control": "no-store", connection: "close" });
    response.flushHeaders();
    const { isStillGood } = reply.request;
    const look = setInterval(() => {
      void isStillGood?.().then((isGood) => isGood || response.destroy());
    }, lookAgainMs);
    const source = { error: undefined as unknown };
    try {
      await pipeline(Readable.from(withLineEnds(untilAborted(begun, signal), source)), response);
    } catch {
      // The status is long sent: the broken connection is what tells the client that lines are missing.
      if (source.error !== undefined) {
        logger.error({ err: source.error, route: reply.request.routeOptions.url }, "stream broke off");
      }
      response.destroy();
    } finally {
      clearInterval(look);
    }
  };
}

/** Asks for the first item, so that an error at the beginning is thrown here. @throws what the source throws by then */
async function begin<T>(items: AsyncIterable<T>): Promise<AsyncIterable<T>> {
  const iterator = items[Symbol.asyncIterator]();
  let first: Promise<IteratorResult<T>> | undefined = iterator.next();
  await Promise.race([first, delay(FIRST_LINE_MS)]);
  const rest: AsyncIterator<T> = {
    next: () => {
      const next = first ?? iterator.next();
      first = undefined;
      return next;
    },
    return: async () => (await iterator.return?.()) ?? { done: true, value: undefined },
  };
  return { [Symbol.asyncIterator]: () => rest };
}

/** Notes the source's error: the pipeline's own may as well be that of a client that left. */
async function* withLineEnds(lines: AsyncIterable<string>, source: { error: unknown }): AsyncGenerator<string> {
  try {
    for await (const line of lines) yield `${line}\n`;
  } catch (error) {
    source.error = error;
    throw error;
  }
}

/** Ends at once when the signal aborts, even while the source is waiting for its next item. */
export async function* untilAborted<T>(items: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  const iterator = items[Symbol.asyncIterator]();
  // One listener for all items: Promise.race against the signal would keep a callback per item for as long as it lives.
  let stop: (() => void) | undefined;
  const onAbort = () => stop?.();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    while (!signal.aborted) {
      const next = await new Promise<IteratorResult<T> | undefined>((resolve, reject) => {
        stop = () => resolve(undefined);
        iterator.next().then(resolve, reject);
      });
      if (next === undefined || next.done) return;
      yield next.value;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
    // Not awaited: a source that waits takes it only when its wait ends.
    void Promise.resolve(iterator.return?.()).catch(() => {});
  }
}
