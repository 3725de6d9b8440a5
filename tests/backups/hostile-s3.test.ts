/** A tenant's S3 server is where the tenant says: that nothing it sends, or does not send, takes the controller down or holds a job for good. */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, it } from "vitest";
import { BucketMediaFiles, type BucketMediaOptions } from "../../src/backups/bucket-media.ts";
import { S3Target } from "../../src/backups/s3-target.ts";
import { MediaOutOfReach, type Bytes } from "../../src/ports/backups.ts";
import { S3_ACCESS } from "../support/s3-server.ts";

const KIB = 1024;
const PICTURE = "local_content/ab/cd/efghij";

const open: (() => void)[] = [];
afterEach(() => {
  for (const close of open.splice(0)) close();
});

type Answers = (request: IncomingMessage, response: ServerResponse) => void;

async function serving(answers: Answers): Promise<string> {
  const server = createServer(answers);
  await once(server.listen(0, "127.0.0.1"), "listening");
  open.push(() => (server.closeAllConnections(), server.close()));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function mediaAt(answers: Answers, bounds: BucketMediaOptions["bounds"]): Promise<BucketMediaFiles> {
  const endpoint = await serving(answers);
  const bucket = { bucket: "media", prefix: "", endpoint, region: "us-east-1", ...S3_ACCESS };
  return new BucketMediaFiles({ bucketOf: async () => bucket, mayConnect: () => true, ...(bounds ? { bounds } : {}) });
}

async function listed(media: BucketMediaFiles, signal?: AbortSignal): Promise<string[]> {
  const paths: string[] = [];
  for await (const { path } of media.list("a", signal)) paths.push(path);
  return paths;
}

function endless(response: ServerResponse): void {
  const more = () => {
    while (!response.destroyed && response.write("x".repeat(16 * KIB)));
  };
  response.on("drain", more);
  more();
}

it("waits for a server that accepts and says nothing no longer than it may", async () => {
  const silent: Answers = () => {};
  const media = await mediaAt(silent, { silentMs: 100 });
  await expect(listed(media)).rejects.toBeInstanceOf(MediaOutOfReach);
  await expect(media.open("a", PICTURE)).rejects.toThrow(
    /the bucket media at .* cannot be used: .*100 ms of inactivity/,
  );
  const place = { bucket: "backups", prefix: "", endpoint: await serving(silent), region: "us-east-1" };
  const target = new S3Target(place, async () => S3_ACCESS, { silentMs: 100 });
  await expect(target.get("a")).rejects.toMatchObject({ code: "Unavailable" });
});

it("waits no longer in the midst of a file", async () => {
  const media = await mediaAt(
    (_request, response) => {
      response.writeHead(200, { "content-length": 100 });
      response.write("begins");
    },
    { silentMs: 100 },
  );
  const content = await media.open("a", PICTURE);
  await expect(content?.toArray()).rejects.toBeInstanceOf(MediaOutOfReach);
});

it.each([200, 403, 503])("reads no endless answer of status %i", async (status) => {
  let sent = 0;
  const media = await mediaAt(
    (_request, response) => {
      response.writeHead(status, { "content-type": "application/xml" });
      sent += 1;
      endless(response);
    },
    { mostBytes: 64 * KIB },
  );
  const asked = listed(media);
  await expect(asked).rejects.toBeInstanceOf(MediaOutOfReach);
  await expect(asked).rejects.toThrow(
    /^the bucket media at \S+ cannot be used: it answers with more than 65536 bytes$/,
  );
  expect(sent).toBe(1);
});

it("tells no more of a server's words than people read", async () => {
  const media = await mediaAt((_request, response) => {
    response.writeHead(400, { "content-type": "application/xml" });
    response.end(`<Error><Code>No</Code><Message>${"so ".repeat(10_000)}</Message></Error>`);
  }, undefined);
  const failed = await listed(media).catch((error: unknown) => error as Error);
  expect((failed as Error).message.length).toBeLessThan(1_000);
});

it("follows no list without end, whether its pages have files or none", async () => {
  for (const contents of ["", `<Contents><Key>${PICTURE}</Key><Size>1</Size></Contents>`]) {
    let page = 0;
    const media = await mediaAt(
      (_request, response) => {
        const token = `<IsTruncated>true</IsTruncated><NextContinuationToken>${++page}</NextContinuationToken>`;
        response.writeHead(200, { "content-type": "application/xml" });
        response.end(`<ListBucketResult>${token}${contents}</ListBucketResult>`);
      },
      { mostFiles: 20 },
    );
    await expect(listed(media)).rejects.toThrow(/lists more than 20 files/);
    expect(page).toBeLessThan(25);
  }
});

it("ends at once where it is told to, and takes that for no fault of the server's", async () => {
  const stop = new AbortController();
  const reason = new Error("the controller stops");
  const media = await mediaAt((request, response) => {
    if (request.url?.includes("list-type")) return stop.abort(reason);
    response.writeHead(200);
    response.write("begins");
  }, undefined);
  const content = await media.open("a", PICTURE, stop.signal);
  const read = content?.toArray();
  read?.catch(() => {});
  const failed = await listed(media, stop.signal).catch((error: unknown) => error);
  expect(failed).toMatchObject({ name: "AbortError" });
  await expect(read).rejects.toBe(reason);
  async function* some(): Bytes {
    yield Buffer.from("content");
  }
  await expect(media.stage("a", PICTURE, some(), stop.signal)).rejects.toBe(reason);
});

it("uploads to no server that does not take it once it is told to stop", async () => {
  const stop = new AbortController();
  const media = await mediaAt(() => stop.abort(new Error("the controller stops")), undefined);
  async function* some(): Bytes {
    yield Buffer.from("content");
  }
  await expect(media.stage("a", PICTURE, some(), stop.signal)).rejects.toThrow("the controller stops");
});
