import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { DirectoryTarget } from "../../../src/backups/directory-target.ts";
import { backUp, type Work } from "../../../src/controller/backups/back-up.ts";
import { restoreGone, type RestoreParts } from "../../../src/controller/backups/restore.ts";
import { ReservedNames } from "../../../src/controller/tenants/reserved-names.ts";
import { Turns } from "../../../src/controller/turns.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import { newTenantStatus, type Tenant, type TenantSpec } from "../../../src/model/tenant.ts";
import type { BackupMeans, Bytes } from "../../../src/ports/backups.ts";

let directory: string | undefined;
afterEach(() => directory && rm(directory, { recursive: true, force: true }));

const FACTS = {
  counts: { users: 1, devices: 1, rooms: 1, events: 7, media: 0 },
  schemaVersion: 93,
  schemaCompatVersion: 91,
};

/** Backs a tenant up, loses it, and restores it. @returns what it was made with */
async function lostAndRestored(spec: Partial<TenantSpec>): Promise<{ calls: string[]; created: unknown }> {
  directory = await mkdtemp(join(tmpdir(), "synapse-shards-gone-"));
  const calls: string[] = [];
  let created: unknown;
  const means = {
    target: new DirectoryTarget(directory),
    sealer: {
      seal: async (_to: string, text: Uint8Array) => text,
      open: async (_by: string, text: Uint8Array) => text,
    },
    copies: {
      dump: (_t: unknown, _s: unknown, consume: (dump: Bytes, facts: unknown) => unknown) => consume(dump(), FACTS),
      restoreBeside: async () => FACTS,
      exchange: async () => {},
      settle: async () => {},
    },
    media: { async *list() {}, admitStaged: async () => {} },
  } as unknown as BackupMeans;
  async function* dump(): Bytes {
    yield Buffer.from("the dump");
  }
  const tenant: Tenant = {
    kind: "Tenant",
    metadata: { name: "a", creationTimestamp: "2026-01-01T00:00:00Z", resourceVersion: "1", generation: 1 },
    spec: { serverName: "a.example", release: "1.163.2", config: "", reclaimPolicy: "Retain", ...spec },
    status: newTenantStatus(),
  };
  const work: Work = { say: () => {}, signal: new AbortController().signal, now: () => Date.parse("2026-01-01") };
  const manifest = await backUp(means, { tenant, secrets: newTenantSecrets("a.example") }, "age1", work);
  const parts = {
    means,
    context: {
      store: {
        get: async () => created && { ...tenant, status: { ...tenant.status, phase: "Running", provisioned: true } },
        writeSecret: async () => {},
      },
      databases: { keptData: async () => ({ hasDatabase: false }) },
      reader: { values: () => [], withStorage: () => undefined },
      clock: { now: () => 0 },
      claims: { conflictWhenAsked: () => undefined },
      deletions: { records: { list: async () => [] }, lock: new Turns(), reserved: new ReservedNames() },
    },
    service: {
      createTenant: async (request: unknown) => void (calls.push("created"), (created = request)),
      suspendTenant: async () => void calls.push("suspended"),
    },
  } as unknown as RestoreParts;
  await restoreGone(parts, "a", manifest, "AGE-SECRET-KEY-1", work);
  return { calls, created };
}

it("makes a lost tenant again with its labels, plan, quotas and hibernation", async () => {
  const wishes = {
    labels: { region: "eu" },
    plan: "small",
    quotas: { users: 5 },
    hibernation: { mode: "Never" },
  } as Partial<TenantSpec>;
  const { calls, created } = await lostAndRestored(wishes);
  expect(created).toEqual({ name: "a", serverName: "a.example", config: "", release: "1.163.2", ...wishes });
  expect(calls).toEqual(["created"]);
});

it("leaves a tenant suspended that was suspended", async () => {
  expect((await lostAndRestored({ suspended: true })).calls).toEqual(["created", "suspended"]);
});
