import { Readable } from "node:stream";
import { DeleteObjectCommand, GetObjectCommand, ListObjectsV2Command, S3Client } from "@aws-sdk/client-s3";
import { messageOf, UserError } from "../model/errors.ts";
import type { BackupTarget, Bytes } from "../ports/backups.ts";
import { checkedKey } from "./keys.ts";
import { s3Bounds, type S3Bounds } from "./s3-bounds.ts";
import { atS3 } from "./s3-problems.ts";
import { upload } from "./s3-upload.ts";

export interface S3Place {
  bucket: string;
  prefix: string;
  endpoint?: string | undefined;
  region: string;
}

export interface S3Credentials {
  accessKeyId: string;
  secretAccessKey: string;
}

/** An object may have 10,000 parts: 160 GiB of them. */
const PART_BYTES = 16 * 1024 * 1024;

/** Backups in a bucket of S3, or of a server that speaks it. */
export class S3Target implements BackupTarget {
  readonly place: string;
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;

  /** @param credentials asked for time and again, so that they can be exchanged */
  constructor(
    { bucket, prefix, endpoint, region }: S3Place,
    credentials: () => Promise<S3Credentials>,
    bounds?: S3Bounds,
  ) {
    this.place = `s3://${bucket}/${prefix}${endpoint === undefined ? "" : ` at ${endpoint}`}`;
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.#client = new S3Client({
      region,
      credentials: async () => ({ ...(await credentials()), expiration: new Date(Date.now() + 300_000) }),
      ...(endpoint === undefined ? {} : { endpoint, forcePathStyle: true }),
      ...s3Bounds(`the backup target ${this.place}`, bounds),
    });
  }

  async put(key: string, content: Bytes | Uint8Array): Promise<void> {
    const means = { client: this.#client, partBytes: PART_BYTES, atOnce: 2 };
    await this.#at(() => upload(means, { Bucket: this.#bucket, Key: this.#key(key) }, content));
  }

  async get(key: string): Promise<Readable> {
    const { Body } = await this.#at(
      () => this.#client.send(new GetObjectCommand({ Bucket: this.#bucket, Key: this.#key(key) })),
      key,
    );
    if (Body instanceof Readable) return Readable.from(this.#read(Body, key), { objectMode: false });
    throw new UserError("Unavailable", `the backup target ${this.place} sent nothing for ${key}`);
  }

  /** What goes wrong in the midst of an object is told like what goes wrong before it. */
  async *#read(body: Readable, key: string): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const chunk of body) yield chunk as Uint8Array;
    } catch (error) {
      // Its reader has enough.
      if ((error as NodeJS.ErrnoException).code === "ERR_STREAM_PREMATURE_CLOSE" && !body.errored) throw error;
      if (messageOf(error).startsWith("Checksum mismatch"))
        throw new UserError("InvalidInput", `${key} in ${this.place} is damaged: ${messageOf(error)}`, {
          cause: error,
        });
      throw new UserError("Unavailable", `the backup target ${this.place} broke off: ${messageOf(error)}`, {
        cause: error,
      });
    } finally {
      body.destroy();
    }
  }

  async *list(prefix: string): AsyncIterable<{ key: string; bytes: number; modifiedAt: number }> {
    for (let token: string | undefined; ;) {
      const command: ListObjectsV2Command = new ListObjectsV2Command({
        Bucket: this.#bucket,
        Prefix: `${this.#prefix}${prefix}`,
        ContinuationToken: token,
      });
      const page = await this.#at(() => this.#client.send(command));
      for (const { Key, Size = 0, LastModified } of page.Contents ?? [])
        if (Key !== undefined)
          yield { key: Key.slice(this.#prefix.length), bytes: Size, modifiedAt: LastModified?.getTime() ?? 0 };
      token = page.NextContinuationToken;
      if (token === undefined) return;
    }
  }

  async remove(key: string): Promise<void> {
    await this.#at(() => this.#client.send(new DeleteObjectCommand({ Bucket: this.#bucket, Key: this.#key(key) })));
  }

  #key(key: string): string {
    return `${this.#prefix}${checkedKey(key)}`;
  }

  #at<T>(work: () => Promise<T>, key?: string): Promise<T> {
    return atS3(`the backup target ${this.place}`, work, key);
  }
}
