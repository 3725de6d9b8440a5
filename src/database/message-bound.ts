import type { Client } from "pg";

/** A message begins with its kind and its length, which counts itself: https://www.postgresql.org/docs/current/protocol-message-formats.html */
const HEADER_BYTES = 5;

/**
 * Watches the lengths of a server's messages as they come. The driver keeps a message until it is whole, and one may have a gigabyte: it has to be
 * known to be too large before that.
 */
export class MessageBound {
  readonly #most: number;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  /** Of the message that has begun, still to come. */
  #left = 0;

  /** @param most bytes of a message */
  constructor(most: number) {
    this.#most = most;
  }

  /** @returns whether a message has begun that is larger than allowed */
  exceededBy(chunk: Buffer): boolean {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const passed = Math.min(this.#left, chunk.length - at);
        this.#left -= passed;
        at += passed;
        continue;
      }
      const copied = chunk.copy(this.#header, this.#headerBytes, at, at + HEADER_BYTES - this.#headerBytes);
      at += copied;
      this.#headerBytes += copied;
      if (this.#headerBytes < HEADER_BYTES) return false;
      this.#headerBytes = 0;
      this.#left = this.#header.readUInt32BE(1) - (HEADER_BYTES - 1);
      if (this.#left > this.#most) return true;
    }
    return false;
  }
}

interface Wire {
  stream: { destroy(): void; prependListener(event: "data", listener: (chunk: Buffer) => void): void };
}

/** Ends a connection on which a message begins that is larger than allowed. @param onExceeded told before that */
export function boundMessages(client: Client, most: number, onExceeded: () => void): void {
  const { stream } = (client as unknown as { connection: Wire }).connection;
  const bound = new MessageBound(most);
  // Before the driver, which would keep it.
  stream.prependListener("data", (chunk) => {
    if (!bound.exceededBy(chunk)) return;
    onExceeded();
    stream.destroy();
  });
}
