import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { errors, type GatewayError } from "./errors.ts";

/**
 * Bodies up to this size are read before they are sent, so that they can be sent again if the homeserver breaks off, and so that
 * slow senders occupy the gateway, not the homeserver. Matrix events are at most 64 KiB; only uploads and big federation
 * transactions are larger, and those are streamed.
 */
export const KEPT_BODY_BYTES = 64 * 1024;
const EMPTY = Buffer.alloc(0);
const ignore = (): void => {};
/** A sender that is silent for this long has gone. */
const STALL_MS = 60_000;
/** Slower than any line that a client can be used on. Large uploads at this rate take hours, and may. */
const MIN_BYTES_PER_SECOND = 512;
/** The rate is an average, and at the beginning lines are slow, or gone for a while. */
const RATE_GRACE_MS = 30_000;

export interface BodyOptions {
  /** Undefined: chunked. */
  contentLength: number | undefined;
  maxBytes: number;
  /** The client waits for "100 Continue" before it sends: called once, when the body is wanted. */
  onWanted: () => void;
  /** The body is too large, or does not come. */
  onFault: (error: GatewayError) => void;
  stallMs?: number;
  rateGraceMs?: number;
}

/** A request's body: untouched until it is wanted, kept when small, streamed with back-pressure when not. */
export class RequestBody {
  readonly #source: IncomingMessage;
  readonly #options: BodyOptions;
  #wanted = false;
  #chunks: Buffer[] = [];
  #received = 0;
  #whole: Buffer | undefined;
  #streamed = false;
  #detach: (() => void) | undefined;

  constructor(source: IncomingMessage, options: BodyOptions) {
    this.#source = source;
    this.#options = options;
    if (options.contentLength === 0) this.#whole = EMPTY;
    // Without a listener, a client that goes away while its body is read would be an uncaught error. `close` of the response tells.
    source.on("error", ignore);
  }

  /** What was read of it to its end, if it is small. */
  get whole(): Buffer | undefined {
    return this.#whole;
  }

  /** Whether `attempt` may be called. */
  get ready(): boolean {
    return this.#whole !== undefined || this.#large;
  }

  /** Whether another `attempt` would send the same. */
  get repeatable(): boolean {
    return !this.#streamed;
  }

  /** What the body takes in memory, in bytes: what was read, or what Node may have buffered of it. */
  get bytesInMemory(): number {
    return (
      this.#whole?.length ??
      Math.max(this.#received, Math.min(this.#options.contentLength ?? KEPT_BODY_BYTES, KEPT_BODY_BYTES))
    );
  }

  /** Known or found to be larger than what is kept. */
  get #large(): boolean {
    return this.#received > KEPT_BODY_BYTES || (this.#options.contentLength ?? 0) > KEPT_BODY_BYTES;
  }

  /** Reads what is to be kept, then calls `done`, once; never if the body is at fault or the client goes away. */
  prepare(done: () => void): void {
    this.#want();
    // A small body comes with its head as a rule, and is there a moment later: then it needs neither listeners nor a timer.
    process.nextTick(() => {
      const { complete, destroyed, readableLength } = this.#source;
      if (destroyed) return;
      if (!complete || readableLength > this.#options.maxBytes) return this.#collect(done);
      this.#received = readableLength;
      this.#whole = (this.#source.read() as Buffer | null) ?? EMPTY;
      done();
    });
  }

  /** Keeps what comes until it is whole, or found to be large. */
  #collect(done: () => void): void {
    const onEnd = (): void => {
      stop();
      this.#whole = Buffer.concat(this.#chunks);
      this.#chunks = [];
      done();
    };
    const stop = this.#read((chunk) => {
      this.#chunks.push(chunk);
      if (!this.#large) return;
      stop();
      done();
    }, onEnd);
  }

  /** The body for one attempt to send it. A stream flows only once `start` is called on it. */
  attempt(): { body: Buffer | UpstreamBody | null; contentLength?: number } {
    if (this.#whole) return { body: this.#whole.length > 0 ? this.#whole : null };
    const { contentLength } = this.#options;
    const body = new UpstreamBody((sink) => {
      this.#want();
      this.#streamed = true;
      for (const chunk of this.#chunks) sink.push(chunk);
      this.#chunks = [];
      return this.#read(
        (chunk) => sink.push(chunk) || this.#pause(),
        () => sink.push(null),
      );
    }, this.#source);
    return contentLength === undefined ? { body } : { body, contentLength };
  }

  /** Stops reading for good. */
  abandon(): void {
    this.#detach?.();
  }

  #want(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#options.onWanted();
  }

  #pause(): void {
    this.#source.pause();
  }

  /** Lets the source flow into `onChunk`. @returns what stops it */
  #read(onChunk: (chunk: Buffer) => void, onEnd: () => void): () => void {
    const source = this.#source;
    const { rateGraceMs = RATE_GRACE_MS } = this.#options;
    // Received by an earlier reading, in its time.
    const before = this.#received;
    let startedAt = performance.now();
    let pausedAt: number | undefined;
    // While it is paused, the homeserver is the slow one.
    const onPause = (): void => void (pausedAt ??= performance.now());
    const onResume = (): void => {
      if (pausedAt !== undefined) startedAt += performance.now() - pausedAt;
      pausedAt = undefined;
    };
    const isTooSlow = (): boolean => {
      const seconds = (performance.now() - startedAt - rateGraceMs) / 1000;
      return this.#received - before < seconds * MIN_BYTES_PER_SECOND;
    };
    const stalled = setTimeout(() => {
      // Paused: it is the homeserver that is slow.
      if (source.isPaused()) stalled.refresh();
      else fail(errors.bodyStalled());
    }, this.#options.stallMs ?? STALL_MS);
    const onData = (chunk: Buffer): void => {
      this.#received += chunk.length;
      stalled.refresh();
      if (this.#received > this.#options.maxBytes) fail(errors.tooLarge(this.#options.maxBytes));
      else if (isTooSlow()) fail(errors.bodyTooSlow(MIN_BYTES_PER_SECOND));
      else onChunk(chunk);
    };
    let stopped = false;
    const stop = (): void => {
      // Once only: by a second time, the rest may be flowing elsewhere.
      if (stopped) return;
      stopped = true;
      clearTimeout(stalled);
      source.off("data", onData).off("end", onEnd).off("close", stop).off("pause", onPause).off("resume", onResume);
      if (!source.readableEnded) source.pause();
      this.#detach = undefined;
    };
    const fail = (error: GatewayError): void => {
      stop();
      this.#options.onFault(error);
    };
    this.#detach = stop;
    source.on("data", onData).on("end", onEnd).on("close", stop).on("pause", onPause).on("resume", onResume);
    source.resume();
    return stop;
  }
}

/** A body on its way to the homeserver. Destroying it leaves the client's connection alone: an answer may still be sent there. */
export class UpstreamBody extends Readable {
  readonly #open: (sink: UpstreamBody) => () => void;
  readonly #source: IncomingMessage;
  #close: (() => void) | undefined;

  constructor(open: (sink: UpstreamBody) => () => void, source: IncomingMessage) {
    super({ highWaterMark: KEPT_BODY_BYTES });
    this.#open = open;
    this.#source = source;
  }

  /** From here the client's bytes flow. Not before: the HTTP client reads ahead while the request may still have to wait. */
  start(): void {
    this.#close ??= this.#open(this);
  }

  override _read(): void {
    if (this.#close) this.#source.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#close?.();
    callback(error);
  }
}
