import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterEach, beforeEach, expect, it } from "vitest";
import { DirectoryTarget } from "../../../src/backups/directory-target.ts";
import { backUp, prune, verify, type Work } from "../../../src/controller/backups/back-up.ts";
import { Catalogue } from "../../../src/controller/backups/catalogue.ts";
import { stageMedia } from "../../../src/controller/backups/media-copies.ts";
import { UserError } from "../../../src/model/errors.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import { newTenantStatus, type Tenant } from "../../../src/model/tenant.ts";
import {
  MediaOutOfReach,
  type BackupMeans,
  type Bytes,
  type CopyFacts,
  type DatabaseCopies,
  type TenantMediaFiles,
} from "../../../src/ports/backups.ts";

const tenant: Tenant = {
  kind: "Tenant",
  metadata: { name: "a", creationTimestamp: "2026-01-01T00:00:00Z", resourceVersion: "1", generation: 1 },
  spec: { serverName: "a.example", release: "1.163.2", config: "enable_registration: false", reclaimPolicy: "Retain" },
  status: newTenantStatus(),
};
const secrets = newTenantSecrets("a.example");
const FACTS: CopyFacts = {
  counts: { users: 1, devices: 1, rooms: 1, events: 7, media: 2 },
  schemaVersion: 93,
  schemaCompatVersion: 91,
};
const DAY = 86_400_000;

let directory: string;
let files: Map<string, string>;
let reads: string[];
let staged: Map<string, string>;
let dumps: (() => Bytes)[];
let restored: CopyFacts;
let now: number;
let means: BackupMeans;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "synapse-shards-back-up-"));
  files = new Map([["local_content/a", "one picture"]]);
  reads = [];
  staged = new Map();
  dumps = [];
  restored = FACTS;
  now = Date.parse("2026-01-01T00:00:00Z");
  const copies = {
    dump: (_tenant: Tenant, _secrets: unknown, consume: (dump: Bytes, facts: CopyFacts) => unknown) =>
      consume((dumps.shift() ?? whole)(), FACTS),
    rehearse: async (dump: Bytes) => {
      for await (const chunk of dump) if (chunk.length === 0) break;
      return restored;
    },
  } as unknown as DatabaseCopies;
  const media: TenantMediaFiles = {
    async *list() {
      for (const [path, text] of files) yield { path, bytes: text.length, modifiedAt: 1 };
    },
    open: async (_tenant, path) => {
      reads.push(path);
      const text = files.get(path);
      return text === undefined ? undefined : Readable.from([Buffer.from(text)]);
    },
    has: async (_tenant, { path }) => files.has(path),
    openStaged: async () => Readable.from([]),
    hasStaged: async (_tenant, { path }) => staged.has(path),
    stage: async (_tenant, path, content) => {
      let text = "";
      for await (const chunk of content) text += Buffer.from(chunk).toString();
      staged.set(path, text);
    },
    admitStaged: async () => {},
  };
  const sealer = {
    seal: async (_to: string, text: Uint8Array) => text,
    open: async (_by: string, text: Uint8Array) => text,
  };
  means = { target: new DirectoryTarget(directory), sealer, copies, media };
});
afterEach(() => rm(directory, { recursive: true, force: true }));

async function* whole(): Bytes {
  yield Buffer.from("the dump");
}

async function* broken(error: Error): Bytes {
  yield Buffer.from("the d");
  throw error;
}

const work = (): Work => ({ say: () => {}, signal: new AbortController().signal, now: () => (now += 1) });
const backUpNow = () => backUp(means, { tenant, secrets }, "age1", work());
const contents = async () =>
  (await readdir(join(directory, "media", "a"), { recursive: true })).filter((name) => name.length > 60);

it("reads what is new only, and stores equal content once", async () => {
  expect((await backUpNow()).media).toMatchObject({ files: 1, newFiles: 1 });
  files.set("local_content/b", "one picture");
  files.set("local_content/c", "another picture");
  reads = [];
  expect((await backUpNow()).media).toMatchObject({ files: 3, newFiles: 1 });
  expect(reads).not.toContain("local_content/a");
  expect(await contents()).toHaveLength(2);
});

it("is made without media that are out of reach, says so, and goes on with them as soon as they are not", async () => {
  await backUpNow();
  const { list } = means.media;
  means.media.list = async function* () {
    yield* [];
    throw new MediaOutOfReach("the bucket a refuses the credentials");
  };
  const without = await backUpNow();
  expect(without.media).toMatchObject({ files: 0, leftOut: "the bucket a refuses the credentials" });
  expect(await verify(means, without, work())).toMatchObject({ ok: true });
  means.media.list = list;
  reads = [];
  const again = await backUpNow();
  expect(again.media).toMatchObject({ files: 1, newFiles: 0 });
  expect(again.media.leftOut).toBeUndefined();
  expect(reads).toEqual([]);
});

it("keeps the newest backup with all media, however old it is", async () => {
  const first = await backUpNow();
  const whole = await backUpNow();
  means.media.list = async function* () {
    yield* [];
    throw new MediaOutOfReach("the bucket a is not there");
  };
  now += 100 * DAY;
  const without = await backUpNow();
  const due = { keepLast: 1, keepDays: 1, keepOfTenantAdmins: 1 };
  expect(await prune(means, "a", due, now)).toBe(1);
  const kept = await new Catalogue(means.target).all("a");
  expect(kept.map(({ id }) => id)).toEqual([whole.id, without.id]);
  expect(first.id).not.toBe(whole.id);
  expect(await contents()).toHaveLength(1);
});

it("reads and stores nothing beyond the size that a file is listed with", async () => {
  let sent = 0;
  means.media.open = async () => {
    async function* endless(): Bytes {
      for (; ; sent += 1) yield Buffer.from("x".repeat(10));
    }
    return Readable.from(endless(), { objectMode: false });
  };
  const { media } = await backUpNow();
  expect(media).toMatchObject({
    files: 0,
    leftOut: "local_content/a is listed with 11 bytes, and its content is not of that size",
  });
  // One that grows is being written, and the next backup's; so is one that has become shorter.
  means.media.has = async () => false;
  const growing = await backUpNow();
  expect(growing.media).toMatchObject({ files: 0 });
  expect(growing.media.leftOut).toBeUndefined();
  means.media.open = async () => Readable.from([Buffer.from("short")]);
  expect((await backUpNow()).media).toMatchObject({ files: 0 });
  // Hashed as it was listed, and endless afterwards.
  let opened = 0;
  means.media.open = async () => {
    async function* content(): Bytes {
      yield Buffer.from("one picture");
      if (opened++ > 0) for (; ; sent += 1) yield Buffer.from("x".repeat(10));
    }
    return Readable.from(content(), { objectMode: false });
  };
  expect((await backUpNow()).media).toMatchObject({ files: 0, newFiles: 0 });
  expect((await readdir(directory, { recursive: true })).filter((name) => /^media.*[0-9a-f]{64}/.test(name))).toEqual(
    [],
  );
  expect(sent).toBeLessThan(100_000);
});

it("is not in the catalogue when its dump breaks off, and can be repeated", async () => {
  dumps = [() => broken(new UserError("Environment", "pg_dump failed: out of memory"))];
  await expect(backUpNow()).rejects.toThrow("out of memory");
  expect(await new Catalogue(means.target).all("a")).toEqual([]);
  await backUpNow();
  expect(await new Catalogue(means.target).all("a")).toHaveLength(1);
});

it("takes the dump again where a move ended its connection", async () => {
  dumps = [() => broken(new UserError("Unavailable", "pg_dump failed: terminating connection"))];
  const { database } = await backUpNow();
  expect(database.bytes).toBe("the dump".length);
});

it("finds what is wrong with a backup", async () => {
  const manifest = await backUpNow();
  expect(await verify(means, manifest, work())).toMatchObject({ ok: true, problems: [] });
  restored = { ...FACTS, counts: { ...FACTS.counts, events: 6 } };
  const [object = ""] = await contents();
  await means.target.put(`media/a/${object}`, Buffer.from("other bytes"));
  const { ok, problems } = await verify(means, manifest, work());
  expect(ok).toBe(false);
  expect(problems).toEqual([
    "the restored database has 6 events, and 7 were backed up",
    expect.stringContaining("media file local_content/a"),
  ]);
  await means.target.remove(`media/a/${object}`);
  expect((await verify(means, manifest, work())).problems[1]).toContain("has no media/a/");
  // What is damaged is stored again by the next backup.
  await backUpNow();
  restored = FACTS;
  expect(await verify(means, manifest, work())).toMatchObject({ ok: true });
  await means.target.put(`media/a/${object}`, Buffer.from("cut"));
  expect(await verify(means, manifest, work())).toMatchObject({ ok: false });
  await backUpNow();
  expect(await verify(means, manifest, work())).toMatchObject({ ok: true });
});

it("removes what is due, and the media that no other backup has", async () => {
  const first = await backUpNow();
  files = new Map([["local_content/c", "another picture"]]);
  const second = await backUpNow();
  expect(await prune(means, "a", { keepLast: 1, keepDays: 5, keepOfTenantAdmins: 1 }, now + 4 * DAY)).toBe(0);
  expect(await prune(means, "a", { keepLast: 1, keepDays: 5, keepOfTenantAdmins: 1 }, now + 6 * DAY)).toBe(1);
  expect((await new Catalogue(means.target).all("a")).map(({ id }) => id)).toEqual([second.id]);
  expect(await contents()).toHaveLength(1);
  await expect(means.target.get(first.database.key)).rejects.toMatchObject({ code: "NotFound" });
  expect(await verify(means, second, work())).toMatchObject({ ok: true });
});

it("brings back the media that are missing, and goes on where it was interrupted", async () => {
  files.set("local_content/b", "two pictures");
  files.set("remote_content/c", "three pictures");
  const manifest = await backUpNow();
  files.delete("local_content/b");
  files.delete("remote_content/c");
  staged.set("local_content/b", "staged before");
  expect(await stageMedia(means, manifest, "a", work())).toBe(1);
  expect(staged.get("remote_content/c")).toBe("three pictures");
});

it("keeps the backups of a renamed tenant together, and finds them by its last name alone", async () => {
  const work: Work = { say: () => {}, signal: new AbortController().signal, now: () => (now += DAY) };
  const first = await backUp(means, { tenant, secrets }, "age1", work);
  const metadata = { ...tenant.metadata, name: "b" };
  const renamed = { ...tenant, metadata, status: { ...tenant.status, storage: "a" } };
  reads = [];
  const second = await backUp(means, { tenant: renamed, secrets }, "age1", work);
  expect(second).toMatchObject({ tenant: "a", name: "b", media: { files: 1, newFiles: 0 } });
  expect(reads).toEqual([]);
  const catalogue = new Catalogue(means.target);
  expect((await catalogue.all("a")).map(({ id }) => id)).toEqual([first.id, second.id]);
  expect(await catalogue.storageOf("b")).toBe("a");
  // Another one that has the former name now.
  const status = { ...tenant.status, storage: "a-12345678" };
  await backUp(means, { tenant: { ...tenant, status }, secrets }, "age1", work);
  expect(await catalogue.storageOf("a")).toBe("a-12345678");
  expect(await catalogue.storageOf("b")).toBe("a");
  await verify(means, second, work);
  expect((await catalogue.verification(second))?.ok).toBe(true);
});
