import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, expect, it } from "vitest";
import { LocalStore } from "../../../../src/platforms/local/store/local-store.ts";
import { SecretBox, storeKey } from "../../../../src/platforms/local/store/secret-box.ts";
import {
  backupOf,
  checkAgainstDatabases,
  inspectStore,
  restoreStore,
} from "../../../../src/platforms/local/store/store-file.ts";
import { newTenantSecrets } from "../../../../src/model/tenant-secrets.ts";
import { describeStoreContract } from "../../../ports/store-contract.ts";
import { newTenantStatus } from "../../../../src/model/tenant.ts";

const directory = mkdtempSync(join(tmpdir(), "store-"));
afterAll(() => rmSync(directory, { recursive: true }));
let count = 0;
const nextFile = () => join(directory, `store-${++count}.db`);

describeStoreContract(
  "local",
  async () => new LocalStore(nextFile()),
  async (store) => {
    await store.close();
    return new LocalStore(join(directory, `store-${count}.db`));
  },
);

it("is readable by its owner alone", async () => {
  const file = nextFile();
  await new LocalStore(file).close();
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

it("refuses a file of a newer version", async () => {
  const file = nextFile();
  await new LocalStore(file).close();
  const db = new DatabaseSync(file);
  db.exec("PRAGMA user_version = 99");
  db.close();
  expect(() => new LocalStore(file)).toThrow(/newer synapse-shards \(format 99/);
});

it("reads a file of format 1 with the present names of its fields", async () => {
  const file = nextFile();
  await new LocalStore(file).close();
  const db = new DatabaseSync(file);
  const body = {
    kind: "Tenant",
    metadata: { name: "a", resourceVersion: "1", generation: 1, creationTimestamp: "2026-01-01T00:00:00.000Z" },
    spec: {
      serverName: "a.example",
      synapseVersion: "1.157.2",
      config: "synapseVersion: kept",
      reclaimPolicy: "Retain",
    },
    status: {
      phase: "Running",
      schemaSynapseVersion: "1.157.2",
      refusedVersion: { version: "1.163.2", reason: "SchemaTooNew", message: "m" },
    },
  };
  db.prepare("INSERT INTO resources VALUES ('Tenant', 'a', 1, ?)").run(JSON.stringify(body));
  db.exec("PRAGMA user_version = 1");
  db.close();
  const store = new LocalStore(file);
  expect(await store.get("Tenant", "a")).toMatchObject({
    spec: { release: "1.157.2", config: "synapseVersion: kept" },
    status: { schemaRelease: "1.157.2", refusedRelease: { release: "1.163.2", reason: "SchemaTooNew" } },
  });
  await store.close();
});

const box = () => new SecretBox(storeKey(join(directory, "key"), true));

describeStoreContract(
  "local, sealed",
  async () => new LocalStore(nextFile(), { box: box() }),
  async (store) => {
    await store.close();
    return new LocalStore(join(directory, `store-${count}.db`), { box: box() });
  },
);

const SPEC = {
  serverName: "a.example",
  release: "1.163.2",
  config: "password: hunter2",
  reclaimPolicy: "Retain",
} as const;
const STATUS = { ...newTenantStatus(), epoch: 7, provisioned: true };

async function filled(file: string, options?: ConstructorParameters<typeof LocalStore>[1]): Promise<LocalStore> {
  const store = new LocalStore(file, options);
  const secrets = { ...newTenantSecrets("a.example"), signingKey: "ed25519 a_x the-signing-key" };
  await store.create("Tenant", "a", { ...SPEC }, { ...STATUS });
  await store.writeSecret("a", secrets);
  await store.writeConfigInEffect("a", { hash: "h", config: "password: hunter2", secrets });
  return store;
}

/** Everything that is on the disk of a store. */
function bytesOf(file: string): string {
  return ["", "-wal", "-shm"]
    .map((suffix) => {
      try {
        return readFileSync(file + suffix, "latin1");
      } catch {
        return "";
      }
    })
    .join("");
}

it("keeps keys and configurations readable with the key only, those of an earlier version too", async () => {
  const [plain, sealed] = [nextFile(), nextFile()];
  await (await filled(plain)).close();
  expect(bytesOf(plain)).toMatch(/the-signing-key[\s\S]*hunter2|hunter2[\s\S]*the-signing-key/);
  const store = new LocalStore(plain, { box: box() });
  const other = await filled(sealed, { box: box() });
  for (const [file, opened] of [
    [plain, store],
    [sealed, other],
  ] as const) {
    expect(bytesOf(file)).not.toMatch(/the-signing-key|hunter2/);
    expect((await opened.readSecret("a"))?.signingKey).toBe("ed25519 a_x the-signing-key");
    expect((await opened.readConfigInEffect("a"))?.config).toBe("password: hunter2");
    expect((await opened.get("Tenant", "a"))?.spec.config).toBe("password: hunter2");
    await opened.close();
    expect(bytesOf(file)).not.toMatch(/the-signing-key|hunter2/);
  }
});

it("refuses another key, and makes none where one is in use", async () => {
  const file = nextFile();
  await (await filled(file, { box: box() })).close();
  expect(inspectStore(file)).toEqual({ tenants: ["a"], sealed: true });
  expect(() => new LocalStore(file, { box: new SecretBox(Buffer.alloc(32, 1)) })).toThrow(
    /is not the one its secrets are sealed with/,
  );
  expect(() => storeKey(join(directory, "lost.key"), false)).toThrow(/lost.key is missing/);
  writeFileSync(join(directory, "short.key"), "abc");
  expect(() => storeKey(join(directory, "short.key"), true)).toThrow(/is not a key/);
});

it("a sealed text opens in its own place only", () => {
  const text = box().seal("secrets/a", "x");
  expect(box().open("secrets/a", text)).toBe("x");
  expect(() => box().open("secrets/b", text)).toThrow(/./);
});

it.each([
  ["cut off", (file: string) => truncateSync(file, 6000)],
  [
    "overwritten",
    (file: string) => writeFileSync(file, "not a database at all, but long enough to be looked at".repeat(100)),
  ],
])("names a file that is %s, and restores it from its copy", async (_what, damage) => {
  const file = nextFile();
  const store = await filled(file, { box: box(), backupAfterSeconds: 0.01 });
  await store.create(
    "Shard",
    "1.163.2-0",
    { release: "1.163.2" },
    { phase: "Ready", reason: "", message: "", failures: 0 },
  );
  await store.close();
  expect(statSync(backupOf(file)).mode & 0o777).toBe(0o600);
  for (const suffix of ["-wal", "-shm"]) rmSync(file + suffix, { force: true });
  damage(file);
  expect(() => inspectStore(file)).toThrow(
    /is damaged \(.+\): `synapse-shards up --recover` restores the copy of \d{4}-/,
  );
  expect(restoreStore(file).formerStore).toContain(".before-");
  const again = new LocalStore(file, { box: box() });
  expect((await again.readSecret("a"))?.signingKey).toBe("ed25519 a_x the-signing-key");
  // Nothing of it is believed that may have changed since.
  expect(await again.list("Shard")).toEqual([]);
  const [tenant] = await again.list("Tenant");
  expect(tenant).toMatchObject({ spec: SPEC, status: { phase: "Pending", provisioned: false, epoch: 7 } });
  await again.close();
});

it("refuses to go on where databases of tenants are there that it does not know", async () => {
  const file = nextFile();
  const nameOf = (tenant: string) => `tenant_${tenant}`;
  checkAgainstDatabases(file, [], nameOf);
  expect(() => checkAgainstDatabases(file, ["tenant_a"], nameOf)).toThrow(/tenant_a.*restore .* from a backup/);
  await (await filled(file, { backupAfterSeconds: 0.01 })).close();
  checkAgainstDatabases(file, ["tenant_a"], nameOf);
  for (const suffix of ["", "-wal", "-shm"]) rmSync(file + suffix, { force: true });
  expect(() => checkAgainstDatabases(file, ["tenant_a", "tenant_b"], nameOf)).toThrow(
    /`synapse-shards up --recover` restores the copy of .* which knows 1 of them/,
  );
  restoreStore(file);
  checkAgainstDatabases(file, ["tenant_a"], nameOf);
});

it("keeps deleted tenants sealed and proofs in a chain, one for each deletion, also after it was opened again", async () => {
  const file = nextFile();
  const box = new SecretBox(storeKey(`${file}.key`, true));
  const spec = {
    serverName: "a.example",
    release: "",
    config: "password: secret-word",
    reclaimPolicy: "Retain" as const,
  };
  const dates = { createdAt: "2026-01-01T00:00:00.000Z", deletedAt: "2026-02-01T00:00:00.000Z" };
  const record = { name: "a", spec, ...dates, keptUntil: "2026-03-03T00:00:00.000Z", managedDatabase: true };
  const proof = (name: string, purgedAt: string) =>
    ({ name, serverName: `${name}.example`, ...dates, purgedAt, reason: "Expired", removed: {} }) as const;
  const store = new LocalStore(file, { box });
  await store.deleted.put(record);
  const first = await store.deleted.prove(proof("x", "2026-03-03T00:00:00.000Z"));
  await store.close();
  expect(readFileSync(file).includes("secret-word")).toBe(false);
  const again = new LocalStore(file, { box });
  expect(await again.deleted.list()).toEqual([record]);
  const second = await again.deleted.prove(proof("y", "2026-03-04T00:00:00.000Z"));
  expect([first.previous, second.previous]).toEqual(["", first.sha256]);
  // The same deletion, carried out twice.
  expect(await again.deleted.prove(proof("x", "2026-03-05T00:00:00.000Z"))).toEqual(first);
  expect(await again.deleted.proofs(10)).toEqual([first, second]);
  expect(await again.deleted.proofs(1)).toEqual([second]);
  const { sha256, ...content } = second;
  expect(createHash("sha256").update(JSON.stringify(content)).digest("hex")).toBe(sha256);
  await again.close();
});

it("opens what it sealed of a tenant that has another name since, and has what was counted of it", async () => {
  const file = nextFile();
  const store = await filled(file, { box: box(), backupAfterSeconds: 0.01 });
  const owner = { tenant: "a", serverName: "a.example" };
  const run = { run: "r", epoch: 1, cpuSeconds: 1, requests: 2 };
  const updatedAt = "2026-01-01T00:00:00.000Z";
  const month = { ...owner, month: "2026-01", cpuSeconds: 1, requests: 2, updatedAt };
  await store.usage.write([{ position: { ...owner, runs: [run] }, months: [month] }]);
  const tenant = (await store.get("Tenant", "a"))!;
  await store.rename({ ...tenant, status: { ...tenant.status, storage: "a" } }, "b");
  await store.close();
  expect(bytesOf(file)).not.toMatch(/the-signing-key|hunter2/);
  // Its data are known by what they are named by, also to who has no key.
  checkAgainstDatabases(file, ["tenant_a"], (storage) => `tenant_${storage}`);
  restoreStore(file);
  const again = new LocalStore(file, { box: box() });
  const found = await again.get("Tenant", "b");
  expect(found).toMatchObject({ spec: { config: "password: hunter2" }, status: { storage: "a", provisioned: false } });
  expect((await again.readSecret("a"))?.signingKey).toBe("ed25519 a_x the-signing-key");
  expect(await again.usage.list("a")).toEqual([]);
  expect(await again.usage.list("b")).toEqual([{ ...month, tenant: "b" }]);
  expect(await again.usage.position({ ...owner, tenant: "b" })).toMatchObject({ tenant: "b", runs: [run] });
  await again.close();
});
