import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { expect, it } from "vitest";
import { exportedFiles, type ExportMeans } from "../../../src/controller/exports/export.ts";
import { ExportManifestSchema, readChecksums } from "../../../src/model/archive.ts";
import { UserError } from "../../../src/model/errors.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import { newTenantStatus, type Tenant } from "../../../src/model/tenant.ts";
import type { Bytes, DatabaseCopies, TenantMediaFiles } from "../../../src/ports/backups.ts";

const tenant: Tenant = {
  kind: "Tenant",
  metadata: { name: "a", creationTimestamp: "2026-01-01T00:00:00Z", resourceVersion: "1", generation: 1 },
  spec: { serverName: "a.example", release: "1.163.2", config: "", reclaimPolicy: "Retain" },
  status: { ...newTenantStatus(), schemaRelease: "1.163.2" },
};
const COUNTS = { users: 1, devices: 1, rooms: 1, events: 7, media: 1 };

/** @param media by path; a function stands for one that is gone by now */
function parts(options: { dump?: () => Promise<never>; media?: Record<string, string | undefined> } = {}) {
  const dropped: string[] = [];
  const bugs: unknown[] = [];
  const means: ExportMeans = {
    postgresMajor: 18,
    copies: {
      dump: async <T>(_t: Tenant, _s: unknown, consume: (dump: Bytes, facts: never) => Promise<T>) => {
        if (options.dump) return options.dump();
        const facts = { counts: COUNTS, schemaVersion: 93, schemaCompatVersion: 91 };
        return consume(Readable.from([Buffer.from("PGDMP")]), facts as never);
      },
    } as unknown as DatabaseCopies,
    media: {
      async *list() {
        for (const path of Object.keys(options.media ?? {})) yield { path, bytes: 5, modifiedAt: 0 };
      },
      open: async (_tenant: string, path: string) => {
        const content = options.media?.[path];
        return content === undefined ? undefined : Readable.from([Buffer.from(content)]);
      },
    } as unknown as TenantMediaFiles,
    spool: {
      hold: async (content) => {
        const held = Buffer.from(await text(Readable.from(content)));
        const sha256 = createHash("sha256").update(held).digest("hex");
        const drop = async () => void dropped.push("dump");
        return { bytes: held.length, sha256, read: () => Readable.from([held]), drop };
      },
    },
  };
  const signal = new AbortController().signal;
  const request = { tenant, secrets: newTenantSecrets("a.example"), operatorsKeys: [], signal, now: () => 0 };
  const files = exportedFiles(means, { ...request, onBug: (error) => bugs.push(error) });
  return { files, dropped, bugs };
}

async function read(files: ReturnType<typeof exportedFiles>): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for await (const { path, bytes, content } of files) {
    const all = await text(Readable.from(content));
    expect(Buffer.byteLength(all), path).toBe(bytes);
    found.set(path, all);
  }
  return found;
}

it("hashes every file, and says last what there was", async () => {
  const { files, dropped } = parts({ media: { "local_content/a": "bytes", "local_content/gone": undefined } });
  const found = await read(files);
  expect([...found.keys()].at(-1)).toBe("manifest.json");
  const manifest = ExportManifestSchema.parse(JSON.parse(found.get("manifest.json") ?? ""));
  expect(manifest).toMatchObject({ serverName: "a.example", release: "1.163.2", counts: COUNTS });
  const sums = readChecksums(found.get("SHA256SUMS") ?? "")!;
  const rest = [...found.keys()].filter((path) => path !== "SHA256SUMS" && path !== "manifest.json");
  expect([...sums.keys()].toSorted()).toEqual(rest.toSorted());
  for (const [path, sha256] of sums)
    expect(createHash("sha256").update(found.get(path)!).digest("hex"), path).toBe(sha256);
  expect(dropped).toEqual(["dump"]);
});

it("takes no more of a file that grows than it said", async () => {
  const found = await read(parts({ media: { "local_content/a": "bytes, and more" } }).files);
  expect(found.get("media_store/local_content/a")).toBe("bytes");
});

it("says in the manifest's place what went wrong, and nothing of what only the log may have", async () => {
  const away = parts({ dump: () => Promise.reject(new UserError("Unavailable", "PostgreSQL is away")) });
  const found = await read(away.files);
  expect([...found.keys()].at(-1)).toBe("FAILED.txt");
  expect(found.get("FAILED.txt")).toContain("PostgreSQL is away");
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC", syscall: "write" });
  expect((await read(parts({ dump: () => Promise.reject(full) }).files)).get("FAILED.txt")).toContain("no space left");
  const bug = parts({ dump: () => Promise.reject(new Error("secret")) });
  expect((await read(bug.files)).get("FAILED.txt")).not.toContain("secret");
  expect(bug.bugs).toHaveLength(1);
});

it("keeps nothing on disk where nobody reads on", async () => {
  const { files, dropped } = parts({ media: { "local_content/a": "bytes" } });
  for await (const { path } of files) if (path === "database.dump") break;
  expect(dropped).toEqual(["dump"]);
});
