import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BucketMediaFiles } from "../../src/backups/bucket-media.ts";
import type { MediaBucket } from "../../src/model/media-bucket.ts";
import { MediaOutOfReach, type Bytes, type MediaFile } from "../../src/ports/backups.ts";
import { S3_ACCESS, startS3, VERSITYGW } from "../support/s3-server.ts";

const PICTURE = "local_content/ab/cd/efghij";
const REMOTE = "remote_content/matrix.example:8448/ab/cd/efghij";

async function* bytes(content: Buffer): Bytes {
  yield content;
}

async function listed(media: BucketMediaFiles, tenant = "a"): Promise<MediaFile[]> {
  const files: MediaFile[] = [];
  for await (const file of media.list(tenant)) files.push(file);
  return files;
}

async function contentOf(media: BucketMediaFiles, path: string): Promise<Buffer | undefined> {
  const stream = await media.open("a", path);
  return stream && Buffer.concat(await stream.toArray());
}

describe.skipIf(!existsSync(VERSITYGW))("with a real S3 server", () => {
  let s3: Awaited<ReturnType<typeof startS3>>;
  let bucket: MediaBucket;
  beforeAll(async () => {
    s3 = await startS3();
    bucket = { bucket: "backups", prefix: "of a/", endpoint: s3.endpoint, region: "us-east-1", ...S3_ACCESS };
  });
  afterAll(() => s3?.close());

  const mediaIn = (of: MediaBucket | string, may = true) =>
    new BucketMediaFiles({ bucketOf: async () => of, mayConnect: () => may });

  it("has what Synapse keeps, originals alone, and gives back what is missing", async () => {
    const media = mediaIn(bucket);
    expect(await listed(media)).toEqual([]);
    const picture = randomBytes(100_000);
    await media.stage("a", PICTURE, bytes(picture));
    await media.stage("a", REMOTE, bytes(Buffer.from("of another server")));
    // Synapse's own, beside them.
    const thumbnails = mediaIn({ ...bucket, prefix: "of a/local_thumbnails/" });
    await thumbnails.stage("a", PICTURE, bytes(Buffer.from("small")));
    const files = await listed(media);
    expect(files.map(({ path }) => path).toSorted()).toEqual([PICTURE, REMOTE]);
    expect(files.every(({ modifiedAt }) => modifiedAt > 0)).toBe(true);
    expect(await listed(media)).toEqual(files);
    expect((await contentOf(media, PICTURE))?.equals(picture)).toBe(true);
    expect(await contentOf(media, "local_content/no/th/ing")).toBeUndefined();
    expect(await media.has("a", { path: PICTURE, bytes: picture.length })).toBe(true);
    expect(await media.has("a", { path: PICTURE, bytes: 1 })).toBe(false);
    expect(await media.has("a", { path: "local_content/no/th/ing", bytes: 1 })).toBe(false);
  });

  it("writes nothing elsewhere in the bucket, whatever a list of media says", async () => {
    const media = mediaIn(bucket);
    for (const path of ["../x", "local_content/../../x", "local_thumbnails/a", "local_content"])
      await expect(media.stage("a", path, bytes(Buffer.from("x")))).rejects.toThrow("no path of a media file");
  });

  it("says why media are out of reach", async () => {
    for (const [media, why] of [
      [mediaIn("its configuration names no bucket for them"), "names no bucket"],
      [mediaIn({ ...bucket, secretAccessKey: "wrong" }), "refuses the credentials"],
      [mediaIn({ ...bucket, bucket: "nowhere" }), "is not there"],
      [mediaIn({ ...bucket, endpoint: "http://127.0.0.1:1" }), "cannot be used"],
      [mediaIn(bucket, false), "where tenants may not connect to"],
      [mediaIn({ ...bucket, endpoint: bucket.endpoint!.replace("127.0.0.1", "localhost") }, false), "may not connect"],
    ] as const) {
      const asked = listed(media);
      await expect(asked).rejects.toThrow(why);
      await expect(asked).rejects.toBeInstanceOf(MediaOutOfReach);
    }
  });
});
