import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterEach, beforeEach, expect, it } from "vitest";
import { packed } from "../../src/archives/tar.ts";
import { keepAsDirectory, keepAsFile, openArchive } from "../../src/cli/archive-files.ts";
import { checksumLine, type ArchiveFile } from "../../src/model/archive.ts";

let folder: string;
beforeEach(async () => void (folder = await mkdtemp(join(tmpdir(), "synapse-shards-archive-"))));
afterEach(() => rm(folder, { recursive: true, force: true }));

const sha256 = (content: string) => createHash("sha256").update(content).digest("hex");
const MEDIA = "media_store/local_content/ab/cd";

/** @param changes contents that differ from what the lists say */
async function archive(changes: Record<string, string | undefined> = {}): Promise<Buffer> {
  const contents: Record<string, string> = { "README.md": "read me", [MEDIA]: "media" };
  const sums = Object.entries(contents).map(([path, content]) => checksumLine(sha256(content), path));
  contents["SHA256SUMS"] = sums.join("");
  contents["manifest.json"] = JSON.stringify({
    format: 1,
    kind: "synapse-homeserver",
    serverName: "a.example",
    release: "1.163.2",
    takenAt: "2026-01-01T00:00:00Z",
    counts: { users: 1, devices: 1, rooms: 1, events: 7, media: 1 },
    checksums: { files: 2, sha256: sha256(contents["SHA256SUMS"]) },
  });
  async function* files(): AsyncGenerator<ArchiveFile> {
    for (const [path, text] of Object.entries({ ...contents, ...changes })) {
      if (text === undefined) continue;
      const content = Buffer.from(text);
      yield { path, bytes: content.length, content: Readable.from([content]) };
    }
  }
  return buffer(packed("a", files()));
}

const of = (content: Buffer) => Readable.from([content]) as AsyncIterable<Uint8Array>;
const asDirectory = (content: Buffer) => keepAsDirectory(of(content), join(folder, "out"), () => {});
const asFile = (content: Buffer, name = "out.tar") => keepAsFile(of(content), join(folder, name), () => {});

it("keeps an archive as a file or as its files, and never in the place of something", async () => {
  const content = await archive();
  expect(await asFile(content)).toMatchObject({ serverName: "a.example" });
  expect(await readFile(join(folder, "out.tar"))).toEqual(content);
  await asDirectory(content);
  expect(await readFile(join(folder, "out", MEDIA), "utf8")).toBe("media");
  expect((await readdir(join(folder, "out"))).toSorted()).toEqual([
    "README.md",
    "SHA256SUMS",
    "manifest.json",
    "media_store",
  ]);
  await expect(asFile(content)).rejects.toThrow("is there already");
  await expect(asDirectory(content)).rejects.toThrow("is there already");
});

it("leaves nothing of an archive that is not complete, not what was sent, or that failed", async () => {
  const whole = await archive();
  const bad: [Buffer, RegExp][] = [
    [whole.subarray(0, 2_000), /cut short/],
    [await archive({ "manifest.json": undefined }), /its end is missing/],
    [await archive({ [MEDIA]: "other" }), /is not what was sent/],
    [await archive({ [MEDIA]: undefined }), /is not what was sent/],
    [await archive({ more: "more" }), /instead of 4/],
    [await archive({ "manifest.json": undefined, "FAILED.txt": "PostgreSQL is away" }), /failed: PostgreSQL is away/],
  ];
  for (const [content, words] of bad) {
    await expect(asFile(content)).rejects.toThrow(words);
    await expect(asDirectory(content)).rejects.toThrow(words);
    expect(await readdir(folder)).toEqual([]);
  }
});

it("begins again where it was killed, and removes nothing that is not its own", async () => {
  const content = await archive();
  await mkdir(join(folder, "out.part"));
  await writeFile(join(folder, "out.part", "somebody's"), "");
  await expect(asDirectory(content)).rejects.toThrow("out.part is there already");
  await writeFile(join(folder, "out.part", ".synapse-shards-export"), "");
  await writeFile(join(folder, "out.tar.part"), "half");
  await asDirectory(content);
  await asFile(content);
  expect((await readdir(folder)).toSorted()).toEqual(["out", "out.tar"]);
});

/** A device that takes no byte stands for a full disk. */
it.skipIf(!existsSync("/dev/full"))("says that the disk is full", async () => {
  await symlink("/dev/full", join(folder, "out.tar.part"));
  await expect(asFile(await archive())).rejects.toThrow(/cannot read or write .*out\.tar: .*no space is left/);
});

it("opens an exported archive where every file is what was exported, and removes what it unpacked", async () => {
  await asFile(await archive());
  const opened = await openArchive(join(folder, "out.tar"));
  expect(await readFile(join(opened.directory, MEDIA), "utf8")).toBe("media");
  // As a command that was killed leaves it.
  expect((await openArchive(join(folder, "out.tar"))).directory).toBe(opened.directory);
  await opened.done();
  expect(await readdir(folder)).toEqual(["out.tar"]);
  await asDirectory(await archive());
  const whole = await openArchive(join(folder, "out"));
  await whole.done();
  await writeFile(join(folder, "out", MEDIA), "other");
  await expect(openArchive(join(folder, "out"))).rejects.toThrow("is not what was exported");
  await rm(join(folder, "out", "manifest.json"));
  await expect(openArchive(join(folder, "out"))).rejects.toThrow("manifest.json");
  await expect(openArchive(join(folder, "absent"))).rejects.toThrow("there is no");
});
