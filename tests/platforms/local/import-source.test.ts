import { existsSync } from "node:fs";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { text } from "node:stream/consumers";
import { expect, it, onTestFinished, vi } from "vitest";
import { bucketTarget } from "../../../src/backups/target.ts";
import { copyMedia } from "../../../src/controller/imports/media.ts";
import { LocalMediaFiles } from "../../../src/platforms/local/launcher/media-files.ts";
import { TenantMedia } from "../../../src/platforms/local/launcher/tenant-media.ts";
import { LocalImportSource } from "../../../src/platforms/local/imports/local-import-source.ts";
import { S3_ACCESS, startS3, VERSITYGW } from "../../support/s3-server.ts";
import { temporaryDirectory } from "./support.ts";

async function source(directory: string): Promise<LocalImportSource> {
  const never = () => Promise.reject(new Error("nothing is run here"));
  return new LocalImportSource({
    means: { users: false, landlock: 0, weaknesses: [] },
    runtimePath: directory,
    directory: join(directory, "imports"),
    readable: [],
    installSynapse: never,
    installModules: never,
  });
}

const work = { say: () => {}, signal: new AbortController().signal };

it("copies a SQLite database while it is written to, and counts what is in the copy", async () => {
  const directory = await temporaryDirectory();
  const file = join(directory, "homeserver.db");
  const live = new DatabaseSync(file);
  live.exec(`PRAGMA journal_mode = WAL;
    CREATE TABLE users (name); CREATE TABLE devices (hidden); CREATE TABLE rooms (id); CREATE TABLE events (id);
    CREATE TABLE local_media_repository (id);
    INSERT INTO users VALUES ('a'); INSERT INTO devices VALUES (0), (1)`);
  const importing = await source(directory);
  expect(await importing.userOf(file)).toBeUndefined();
  const copy = await importing.copySqlite(file, work);
  expect(copy.counts).toEqual({ users: 1, devices: 1, rooms: 0, events: 0, media: 0 });
  // It goes on.
  live.exec("INSERT INTO users VALUES ('b')");
  live.close();
  await copy.drop();
});

it("says which file is missing, is none of Synapse, or cannot be used, and why", async () => {
  const directory = await temporaryDirectory();
  const importing = await source(directory);
  const [words, plain, dump] = ["text.db", "plain.sql", "custom.dump"].map((name) => join(directory, name));
  await writeFile(words!, "this is no database, however long it is".repeat(100));
  await writeFile(plain!, "CREATE TABLE users ();");
  await writeFile(dump!, "PGDMP and more");
  const empty = join(directory, "empty.db");
  new DatabaseSync(empty).close();
  await expect(importing.copySqlite(join(directory, "absent.db"), work)).rejects.toThrow(/absent\.db.*it is not there/);
  await expect(importing.copySqlite(words!, work)).rejects.toThrow(/text\.db cannot be read as a SQLite database/);
  await expect(importing.copySqlite(empty, work)).rejects.toThrow(/empty\.db is not the database of a Synapse/);
  await expect(importing.dump(plain!)).rejects.toThrow("pg_dump --format=custom");
  expect((await importing.dump(dump!)).bytes).toBe(14);
  await expect(importing.text("absent.yaml", directory)).rejects.toMatchObject({ code: "InvalidInput" });
  await writeFile(join(directory, "large.yaml"), "a".repeat(2 * 1024 ** 2));
  await expect(importing.text("large.yaml", directory)).rejects.toThrow("is larger than");
});

it("lists originals of media alone, and follows no links", async () => {
  const directory = await temporaryDirectory();
  for (const folder of ["local_content/ab", "remote_content/other.example", "local_thumbnails/ab", "url_cache"])
    await mkdir(join(directory, folder), { recursive: true });
  for (const file of [
    "local_content/ab/cd",
    "remote_content/other.example/ef",
    "local_thumbnails/ab/cd",
    "url_cache/x",
  ])
    await writeFile(join(directory, file), "bytes");
  await symlink("/etc/passwd", join(directory, "local_content/ab/link"));
  const paths: string[] = [];
  for await (const { path } of (await source(directory)).media(directory)) paths.push(path);
  expect(paths).toEqual(["local_content/ab/cd", "remote_content/other.example/ef"]);
});

it("reads templates and pages of a directory, two deep", async () => {
  const directory = await temporaryDirectory();
  await mkdir(join(directory, "pages/en/deeper"), { recursive: true });
  await writeFile(join(directory, "pages/en/1.0.html"), "policy");
  await writeFile(join(directory, "pages/en/deeper/no.html"), "no");
  expect(await (await source(directory)).texts("pages", directory)).toEqual(new Map([["en/1.0.html", "policy"]]));
});

it.skipIf(!existsSync(VERSITYGW))(
  "copies originals of a bucket alone, and goes on where it was interrupted",
  async () => {
    const s3 = await startS3();
    onTestFinished(() => s3.close());
    const directory = await temporaryDirectory();
    const credentialsFile = join(directory, "s3.yaml");
    await writeFile(credentialsFile, JSON.stringify(S3_ACCESS), { mode: 0o600 });
    const place = { bucket: "backups", prefix: "old/", endpoint: s3.endpoint, region: "us-east-1", credentialsFile };
    const bucket = bucketTarget(place);
    for (const key of ["local_content/ab/cd/ef", "local_thumbnails/ab/cd/ef/32", "remote_content/o.example/ab/cd/ef"])
      await bucket.put(key, Buffer.from(`bytes of ${key}`));
    const importing = await source(directory);
    expect(await importing.mayHaveMedia(place)).toBe(true);
    const paths: string[] = [];
    for await (const { path } of importing.media(place)) paths.push(path);
    expect(paths).toEqual(["local_content/ab/cd/ef", "remote_content/o.example/ab/cd/ef"]);
    expect(await text(await importing.openMedia(place, paths[0]!))).toBe("bytes of local_content/ab/cd/ef");
    // Interrupted after the first, what is there of it is not copied again.
    const media = new LocalMediaFiles(new TenantMedia(join(directory, "media"), false));
    const stopping = new AbortController();
    const told = vi.spyOn(media, "openStaged").mockImplementationOnce((...of) => {
      stopping.abort();
      return media.openStaged(...of);
    });
    const now = { ...work, now: () => 0 };
    const broken = { ...now, signal: stopping.signal };
    await expect(copyMedia({ media, source: importing }, "a", [place], broken)).rejects.toThrow("aborted");
    expect(told).toHaveBeenCalledTimes(2);
    expect(await copyMedia({ media, source: importing }, "a", [place], now)).toEqual({ files: 2, copied: 1 });
    expect(await text(await media.openStaged("a", paths[1]!))).toBe(`bytes of ${paths[1]}`);
    const absent = importing.media({ ...place, bucket: "absent" })[Symbol.asyncIterator]();
    await expect(absent.next()).rejects.toThrow("s3://absent/old/");
  },
);
