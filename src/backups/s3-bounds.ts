import type { Readable } from "node:stream";
import type { S3ClientConfig } from "@aws-sdk/client-s3";
import { UserError } from "../model/errors.ts";

const CONNECT_MS = 5_000;
/** Without a byte in either direction, also where we do not read: what is fetched may go to a slower place. */
const SILENT_MS = 300_000;
/** Of an answer that is read whole: a page of a list has 1,000 keys of 1,024 bytes at most, which XML can make longer. */
const MOST_BYTES = 8 * 1024 * 1024;

export interface S3Bounds {
  silentMs?: number;
  mostBytes?: number;
}

/** What a server that speaks S3 can take of ours at most, whoever it belongs to. @param place for people, such as `the bucket media` */
export function s3Bounds(
  place: string,
  { silentMs = SILENT_MS, mostBytes = MOST_BYTES }: S3Bounds = {},
): { requestHandler: { connectionTimeout: number; socketTimeout: number } } & Pick<
  Required<S3ClientConfig>,
  "maxAttempts" | "streamCollector"
> {
  return {
    maxAttempts: 3,
    // `requestTimeout` only warns.
    requestHandler: { connectionTimeout: CONNECT_MS, socketTimeout: silentMs },
    streamCollector: (answer: Readable) => collected(answer, place, mostBytes),
  };
}

/** The client's own reads answers whole, however long they are. */
async function collected(answer: Readable, place: string, mostBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > mostBytes) {
      const error = new UserError(
        "Unavailable",
        `${place} cannot be used: it answers with more than ${mostBytes} bytes`,
      );
      // Or the client adds to the message.
      throw Object.assign(error, { $metadata: {} });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
