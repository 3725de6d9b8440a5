import { lookup, type LookupAddress } from "node:dns";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { addAbortSignal, Readable } from "node:stream";
import { GetObjectCommand, HeadObjectCommand, ListObjectsV2Command, S3Client } from "@aws-sdk/client-s3";
import { messageOf, UserError } from "../model/errors.ts";
import type { MediaBucket } from "../model/media-bucket.ts";
import { MediaOutOfReach, type Bytes, type MediaFile, type TenantMediaFiles } from "../ports/backups.ts";
import { s3Bounds, type S3Bounds } from "./s3-bounds.ts";
import { atS3 } from "./s3-problems.ts";
import { upload } from "./s3-upload.ts";

export interface BucketMediaOptions {
  /** The bucket of a tenant as it runs, or ran last; or why it has none. @param tenant by what its data are named */
  bucketOf(tenant: string): Promise<MediaBucket | string>;
  /** Whether a tenant may have us connect there: it names the place. */
  mayConnect(tenant: string, address: string, port: number): boolean;
  bounds?: S3Bounds & { mostFiles?: number };
}

/** Originals; thumbnails and previews of URLs are made again. */
const ORIGINALS = ["local_content/", "remote_content/"];
/** As Synapse names what it keeps under these; our own hand the path to the target's lists, and back to a bucket. */
const PATH = /^(local|remote)_content(\/[A-Za-z0-9_-][A-Za-z0-9._:[\]-]{0,254}){1,5}$/;
const PART_BYTES = 8 * 1024 * 1024;
/** A backup remembers each, which takes some hundred bytes of the controller's memory. */
const MOST_FILES = 1_000_000;
/** Synapse's own are shorter. */
const LONGEST_PATH = 400;
const SOCKETS = 4;
/** As many tenants as have jobs at once, and some. */
const CLIENTS_KEPT = 8;

interface Connected {
  bucket: MediaBucket;
  place: string;
  client: S3Client;
}

/**
 * Media in buckets that tenants bring along, with the tenants' own keys. Nothing is staged apart: a file that is missing goes to its place at once,
 * where it does no harm, since no two files have the same path.
 */
export class BucketMediaFiles implements TenantMediaFiles {
  readonly #options: BucketMediaOptions;
  readonly #clients = new Map<string, Connected>();

  constructor(options: BucketMediaOptions) {
    this.#options = options;
  }

  async *list(tenant: string, abortSignal?: AbortSignal): AsyncIterable<MediaFile> {
    const { client, bucket, place } = await this.#connect(tenant);
    const { mostFiles = MOST_FILES } = this.#options.bounds ?? {};
    let listed = 0;
    const count = () => {
      if (++listed > mostFiles)
        throw new MediaOutOfReach(`${place} lists more than ${mostFiles} files, of which the rest is left out`);
    };
    for (const originals of ORIGINALS)
      for (let token: string | undefined; ;) {
        const command: ListObjectsV2Command = new ListObjectsV2Command({
          Bucket: bucket.bucket,
          Prefix: `${bucket.prefix}${originals}`,
          ContinuationToken: token,
        });
        const page = await inReach(place, () => client.send(command, { abortSignal }));
        // A page without a file counts, too: there may be no end of them.
        count();
        for (const { Key = "", Size = 0, LastModified } of page.Contents ?? []) {
          count();
          const path = Key.slice(bucket.prefix.length);
          if (isPath(path)) yield { path, bytes: Size, modifiedAt: LastModified?.getTime() ?? 0 };
        }
        token = page.NextContinuationToken;
        if (token === undefined) break;
      }
  }

  async open(tenant: string, path: string, abortSignal?: AbortSignal): Promise<Readable | undefined> {
    const { client, bucket, place } = await this.#connect(tenant);
    const command = new GetObjectCommand({ Bucket: bucket.bucket, Key: `${bucket.prefix}${path}` });
    const found = await present(inReach(place, () => client.send(command, { abortSignal }), path));
    return found?.Body instanceof Readable
      ? Readable.from(contentOf(place, found.Body, abortSignal), { objectMode: false })
      : undefined;
  }

  async has(
    tenant: string,
    { path, bytes }: Pick<MediaFile, "path" | "bytes">,
    abortSignal?: AbortSignal,
  ): Promise<boolean> {
    const { client, bucket, place } = await this.#connect(tenant);
    const command = new HeadObjectCommand({ Bucket: bucket.bucket, Key: `${bucket.prefix}${path}` });
    const found = await present(inReach(place, () => client.send(command, { abortSignal }), path));
    return found?.ContentLength === bytes;
  }

  async stage(tenant: string, path: string, content: Bytes, signal?: AbortSignal): Promise<void> {
    if (!isPath(path)) throw new Error(`${JSON.stringify(path)} is no path of a media file`);
    const { client, bucket, place } = await this.#connect(tenant);
    const means = { client, partBytes: PART_BYTES, atOnce: 1 };
    await atS3(place, () => upload(means, { Bucket: bucket.bucket, Key: `${bucket.prefix}${path}` }, content, signal));
  }

  /** It is where it belongs by then. */
  async hasStaged(): Promise<boolean> {
    return false;
  }

  async openStaged(tenant: string, path: string): Promise<Readable> {
    const content = await this.open(tenant, path);
    if (content) return content;
    throw new UserError("NotFound", `the bucket of ${tenant} has no ${path}`);
  }

  async admitStaged(): Promise<void> {}

  /** @throws MediaOutOfReach */
  async #connect(tenant: string): Promise<Connected> {
    const bucket = await this.#options.bucketOf(tenant);
    if (typeof bucket === "string") throw new MediaOutOfReach(bucket);
    const key = JSON.stringify([tenant, bucket]);
    const known = this.#clients.get(key);
    if (known) return known;
    const made = this.#make(tenant, bucket);
    this.#clients.set(key, made);
    for (const [oldest, { client }] of this.#clients) {
      if (this.#clients.size <= CLIENTS_KEPT) break;
      this.#clients.delete(oldest);
      client.destroy();
    }
    return made;
  }

  #make(tenant: string, bucket: MediaBucket): Connected {
    const { endpoint, region, accessKeyId, secretAccessKey } = bucket;
    const place = `the bucket ${bucket.bucket}${endpoint === undefined ? "" : ` at ${endpoint}`}`;
    const url = new URL(endpoint ?? "https://s3.amazonaws.com");
    const port = Number(url.port) || (url.protocol === "https:" ? 443 : 80);
    const may = (address: string) => this.#options.mayConnect(tenant, address, port);
    const host = url.hostname.replace(/^\[|\]$/g, "");
    // Of an address, nobody asks for a name.
    if (isIP(host) !== 0 && !may(host)) throw refused(place, host, port);
    const options = { keepAlive: true, maxSockets: SOCKETS, lookup: lookupWithin(may, place, port) };
    const bounds = s3Bounds(place, this.#options.bounds);
    const client = new S3Client({
      region,
      credentials: { accessKeyId, secretAccessKey },
      ...(endpoint === undefined ? {} : { endpoint, forcePathStyle: true }),
      ...bounds,
      requestHandler: {
        ...bounds.requestHandler,
        httpAgent: new HttpAgent(options),
        httpsAgent: new HttpsAgent(options),
      },
    });
    return { bucket, place, client };
  }
}

function isPath(path: string): boolean {
  return path.length <= LONGEST_PATH && PATH.test(path);
}

function refused(place: string, address: string, port: number): MediaOutOfReach {
  return new MediaOutOfReach(
    `${place} is at ${address} port ${port}, where tenants may not connect to; an operator can allow it by allowedDestinations`,
  );
}

/** Names lead to addresses that may be connected to, or nowhere. */
function lookupWithin(may: (address: string) => boolean, place: string, port: number): LookupFunction {
  return (host, options, done) => {
    lookup(host, { ...options, all: true }, (error, found: LookupAddress[]) => {
      const allowed = error ? [] : found.filter(({ address }) => may(address));
      const [first] = allowed;
      if (!first) done(error ?? refused(place, found[0]?.address ?? host, port), "");
      else if (options.all) done(null, allowed);
      else done(null, first.address, first.family);
    });
  };
}

/** What keeps us from a tenant's bucket says nothing of the rest of its backup. */
async function inReach<T>(place: string, work: () => Promise<T>, key?: string): Promise<T> {
  try {
    return await atS3(place, work, key);
  } catch (error) {
    if (error instanceof MediaOutOfReach || !(error instanceof UserError) || error.code === "NotFound") throw error;
    throw new MediaOutOfReach(error.message, { cause: error });
  }
}

async function present<T>(found: Promise<T>): Promise<T | undefined> {
  try {
    return await found;
  } catch (error) {
    if (error instanceof UserError && error.code === "NotFound") return undefined;
    throw error;
  }
}

async function* contentOf(
  place: string,
  body: Readable,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  if (signal) addAbortSignal(signal, body);
  try {
    for await (const chunk of body) yield chunk as Uint8Array;
  } catch (error) {
    signal?.throwIfAborted();
    // Its reader has enough.
    if ((error as NodeJS.ErrnoException).code === "ERR_STREAM_PREMATURE_CLOSE" && !body.errored) throw error;
    throw new MediaOutOfReach(`${place} broke off: ${messageOf(error)}`, { cause: error });
  } finally {
    body.destroy();
  }
}
