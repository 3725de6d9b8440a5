import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { UserError } from "../../model/errors.ts";
import { CopyPostponed } from "../../ports/database-moves.ts";
import { identifier, literal } from "../connection.ts";
import { boundMessages } from "../message-bound.ts";
import { parseMessage, type Message } from "./pgoutput.ts";

/** A slot begins where no transaction of the whole server is open, which one that runs long puts off. */
const SLOT_MS = 600_000;
/** The server gives up who says nothing for `wal_sender_timeout`, by default a minute. */
const REPORT_MS = 5_000;
const MOST_BUFFERED_BYTES = 8 * 1024 ** 2;
/** Of a change: in SQL it may take six times that. What Synapse writes is far below. */
const MOST_MESSAGE_BYTES = 16 * 1024 ** 2;
/** Microseconds from 1970 to 2000, where PostgreSQL's time begins. */
const EPOCH_MICROSECONDS = 946_684_800_000_000n;

const TOO_LARGE = `a row that was written to it has more than ${MOST_MESSAGE_BYTES / 1024 ** 2} MiB, which is not copied while the tenant runs: move it while it is parked (--parked)`;

/** What has come, in order: changes, and how far in the log all is known then. */
export interface Arrived {
  messages: Message[];
  position: bigint;
}

/** The part of pg's connection that speaks the replication protocol; its types do not have it. */
interface CopyConnection {
  stream: {
    pause(): void;
    resume(): void;
  };
  on(event: "copyData", listener: (message: { chunk: Buffer }) => void): void;
  sendCopyFromChunk(chunk: Buffer): void;
}

/**
 * Changes of one database by logical replication, on a connection with `replication=database`. Its slot is a temporary one, which the server drops
 * with the connection, however that ends: nothing is left that keeps the server's log.
 */
export class ChangeStream {
  readonly #client: pg.Client;
  readonly #connection: CopyConnection;
  #messages: Message[] = [];
  #bufferedBytes = 0;
  #received = 0n;
  #isPaused = false;
  #failure: Error | undefined;
  readonly #failed: PromiseWithResolvers<never> = Promise.withResolvers();
  #wake: () => void = () => {};
  #reported = 0n;
  #report: NodeJS.Timeout | undefined;

  constructor(client: pg.Client) {
    this.#client = client;
    this.#connection = (client as unknown as { connection: CopyConnection }).connection;
    this.#failed.promise.catch(() => {});
    client.on("error", (error) => this.#fail(error));
    boundMessages(client, MOST_MESSAGE_BYTES, () => this.#fail(new UserError("Conflict", TOO_LARGE)));
    client.on("end", () => this.#fail(new UserError("Unavailable", "the server has ended the stream of changes")));
  }

  /**
   * Makes the slot. @returns the snapshot from which on changes come; it can be taken until `start`
   * @throws CopyPostponed where a transaction on the server does not end
   */
  async open(slot: string): Promise<string> {
    const made = this.#client.query<{ snapshot_name: string }>(
      `CREATE_REPLICATION_SLOT ${identifier(slot)} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')`,
    );
    const late = new AbortController();
    const bound = sleep(SLOT_MS, undefined, { signal: late.signal }).then(() => {
      throw new CopyPostponed(`a transaction on the server that has it did not end in ${SLOT_MS / 60_000} minutes`);
    });
    made.catch(() => {});
    try {
      const { rows } = await Promise.race([made, bound, this.#failed.promise]);
      return rows[0]?.snapshot_name ?? "";
    } finally {
      late.abort();
      bound.catch(() => {});
    }
  }

  start(slot: string, publication: string): void {
    this.#connection.on("copyData", ({ chunk }) => {
      try {
        this.#take(chunk);
      } catch (error) {
        this.#fail(error as Error);
      }
    });
    const options = `proto_version '1', publication_names ${literal(identifier(publication))}`;
    // It lasts as long as the stream does.
    this.#client.query(`START_REPLICATION SLOT ${identifier(slot)} LOGICAL 0/0 (${options})`).then(
      () => this.#fail(new UserError("Unavailable", "the server has ended the stream of changes")),
      (error: Error) => this.#fail(error),
    );
    this.#report = setInterval(() => this.#say(false), REPORT_MS);
    this.#report.unref();
  }

  /** Waits for something, for at most so long. @throws what the stream has failed of */
  async next(waitMs: number): Promise<Arrived> {
    if (this.#messages.length === 0 && !this.#failure) {
      const late = new AbortController();
      await Promise.race([
        new Promise<void>((resolve) => (this.#wake = resolve)),
        sleep(waitMs, undefined, { signal: late.signal }).catch(() => {}),
      ]);
      late.abort();
    }
    if (this.#failure) throw this.#failure;
    const messages = this.#messages;
    this.#messages = [];
    this.#bufferedBytes = 0;
    if (this.#isPaused) this.#connection.stream.resume();
    this.#isPaused = false;
    return { messages, position: this.#received };
  }

  /** Lets the server forget its log up to there. */
  applied(position: bigint): void {
    this.#reported = position;
  }

  /** Asks how far the server has read its log, also where nothing in it was of this database. */
  ask(): void {
    this.#say(true);
  }

  end(): void {
    clearInterval(this.#report);
    this.#fail(new UserError("Unavailable", "the stream of changes was ended"));
  }

  #take(chunk: Buffer): void {
    const kind = String.fromCharCode(chunk.readUInt8(0));
    if (kind === "k") {
      this.#arrived(chunk.readBigUInt64BE(1));
      if (chunk.readUInt8(17) === 1) this.#say(false);
    } else if (kind === "w") {
      // At once: what pg hands out is part of a buffer that it uses again.
      const message = parseMessage(chunk.subarray(25));
      this.#bufferedBytes += chunk.length;
      if (message.kind !== "other") this.#messages.push(message);
      if (message.kind === "commit") this.#arrived(message.end);
      if (this.#bufferedBytes > MOST_BUFFERED_BYTES && !this.#isPaused) {
        this.#isPaused = true;
        this.#connection.stream.pause();
      }
    }
    this.#wake();
  }

  #arrived(position: bigint): void {
    if (position > this.#received) this.#received = position;
  }

  #say(isAnswerWanted: boolean): void {
    if (this.#failure) return;
    const report = Buffer.alloc(34);
    report.write("r", 0, "latin1");
    for (const at of [1, 9, 17]) report.writeBigUInt64BE(this.#reported, at);
    report.writeBigInt64BE(BigInt(Date.now()) * 1000n - EPOCH_MICROSECONDS, 25);
    report.writeUInt8(isAnswerWanted ? 1 : 0, 33);
    this.#connection.sendCopyFromChunk(report);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#failed.reject(error);
    clearInterval(this.#report);
    this.#wake();
  }
}
