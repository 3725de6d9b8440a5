import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import tar from "tar-stream";
import { expect, it } from "vitest";
import { packed, unpacked } from "../../src/archives/tar.ts";
import type { ArchiveFile } from "../../src/model/archive.ts";

async function* files(contents: Record<string, Buffer>): AsyncGenerator<ArchiveFile> {
  for (const [path, content] of Object.entries(contents))
    yield { path, bytes: content.length, content: Readable.from([content]) };
}

async function read(archive: Buffer): Promise<Record<string, Buffer>> {
  const found: Record<string, Buffer> = {};
  for await (const { path, content } of unpacked(Readable.from([archive])))
    found[path] = await buffer(Readable.from(content));
  return found;
}

const CONTENTS = {
  "README.md": Buffer.from("read me"),
  empty: Buffer.alloc(0),
  [`media_store/local_content/ab/${"c".repeat(200)}`]: Buffer.alloc(300_000, 7),
};

it("unpacks what was packed, also long names and files of many chunks", async () => {
  expect(await read(await buffer(packed("clinic-a", files(CONTENTS))))).toEqual(CONTENTS);
});

it("refuses an archive that is cut short, and what is none", async () => {
  const whole = await buffer(packed("clinic-a", files(CONTENTS)));
  for (const part of [whole.subarray(0, 700), whole.subarray(0, 200_000), Buffer.from("x".repeat(5_000))])
    await expect(read(part)).rejects.toMatchObject({ code: "InvalidInput" });
});

it("refuses names that lead out of the directory, and links", async () => {
  for (const header of [
    { name: "clinic-a/../../etc/passwd" },
    { name: "/etc/passwd" },
    { name: "clinic-a//etc" },
    { name: "alone" },
    { name: "clinic-a/link", type: "symlink" as const, linkname: "/etc/passwd" },
  ]) {
    const pack = tar.pack();
    pack.entry(header, header.type === "symlink" ? "" : "x");
    pack.finalize();
    const archive = await buffer(Readable.from(pack));
    await expect(read(archive), header.name).rejects.toMatchObject({ code: "InvalidInput" });
  }
});

it("fails with the source, and where a file has another size than was said", async () => {
  async function* failing(): AsyncGenerator<ArchiveFile> {
    yield* files({ "README.md": Buffer.from("read me") });
    throw new Error("the disk is gone");
  }
  await expect(buffer(packed("a", failing()))).rejects.toThrow("the disk is gone");
  async function* shorter(): AsyncGenerator<ArchiveFile> {
    yield { path: "a", bytes: 10, content: Readable.from([Buffer.from("short")]) };
  }
  await expect(buffer(packed("a", shorter()))).rejects.toThrow("Size mismatch");
});

it("ends its source when nobody reads on", async () => {
  let ended = false;
  async function* endless(): AsyncGenerator<ArchiveFile> {
    try {
      for (let at = 0; ; at++) yield* files({ [`file-${at}`]: Buffer.alloc(1_000_000) });
    } finally {
      ended = true;
    }
  }
  const stream = packed("a", endless());
  await stream[Symbol.asyncIterator]().next();
  stream.destroy();
  await expect.poll(() => ended).toBe(true);
});
