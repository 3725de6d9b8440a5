import { Readable } from "node:stream";
import type { S3Client } from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import type { Bytes } from "../ports/backups.ts";

/** Stores an object, in parts where it is large. @param signal ends it @throws what its content failed with, if that did */
export async function upload(
  { client, partBytes, atOnce }: { client: S3Client; partBytes: number; atOnce: number },
  place: { Bucket: string; Key: string },
  content: Bytes | Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const Body = content instanceof Uint8Array ? content : Readable.from(content, { objectMode: false });
  let source: unknown;
  if (Body instanceof Readable) Body.on("error", (error) => (source = error));
  const uploading = new Upload({ client, params: { ...place, Body }, partSize: partBytes, queueSize: atOnce });
  const stop = () => void uploading.abort();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    signal?.throwIfAborted();
    await uploading.done();
  } catch (error) {
    signal?.throwIfAborted();
    // What the content says of itself says more than that it broke off.
    throw source ?? error;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}
