import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, expect, it } from "vitest";
import { LocalStore } from "../../../../src/platforms/local/store/local-store.ts";
import { describeStoreContract } from "../../../ports/store-contract.ts";

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

it("prevents others on the machine from reading secrets: the file is its owner's alone", async () => {
  const file = nextFile();
  await new LocalStore(file).close();
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

it("prevents an older program from misreading a newer one's file", async () => {
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
