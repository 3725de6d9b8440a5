import { expect, it } from "vitest";
import { SteadyClock } from "../../../src/model/clock.ts";
import type { ConfigMeaning } from "../../../src/model/config-meaning.ts";
import { Claims } from "../../../src/controller/claims/claims.ts";
import { admit } from "../../../src/controller/start/admission.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import type { TenantDatabases } from "../../../src/ports/databases.ts";
import type { Assignment, ShardControl } from "../../../src/ports/shard-control.ts";
import { SPEC, STATUS } from "../../ports/store-contract.ts";

const OWN = "database: {name: psycopg2, args: {host: db.example, user: u, password: p, dbname: d}}";
const MEANING: ConfigMeaning = {
  database: { host: "db.example", port: 5432, name: "d", user: "u" },
  hosts: ["a.example"],
  publicBaseUrl: "https://a.example/",
  bucket: null,
};

/** What a shard and a server say; and what was asked of them. */
class Situation {
  readonly claims = new Claims(
    () => ({ host: "", port: 1, name: "" }),
    new SteadyClock(),
    () => [],
  );
  readonly asked: string[] = [];
  meaning: ConfigMeaning | undefined = MEANING;
  databaseId: string | undefined = "7/1";
  mediaNeedBuckets = false;
  inEffect: ConfigMeaning | undefined;

  constructor() {
    this.claims.settle();
  }

  admit(name: string, config = OWN, hash = "h"): Promise<string | undefined> {
    const tenant = {
      kind: "Tenant",
      metadata: { name, creationTimestamp: "2026-01-01T00:00:00Z", resourceVersion: "1", generation: 1 },
      spec: { ...SPEC, serverName: `${name}.example`, config },
      status: { ...STATUS, ...(this.inEffect ? { inEffect: { hash: "former", meaning: this.inEffect } } : {}) },
    } satisfies Tenant;
    this.claims.set(tenant);
    const databases = {
      identify: async () => {
        this.asked.push(`identify ${name}`);
        return this.databaseId;
      },
    } as unknown as TenantDatabases;
    const client = {
      checkTenant: async (_name: string, { epoch }: Assignment) => {
        if (!(epoch >= 1)) throw new Error("epoch is not a whole number from 1");
        this.asked.push(`check ${name}`);
        return { ...(this.meaning ? { meaning: { ...this.meaning, hosts: [`${name}.example`] } } : {}), warnings: [] };
      },
    } as unknown as ShardControl;
    const request = { tenant, secrets: newTenantSecrets("a.example"), hash, assignment: { epoch: 0 } as Assignment };
    const { claims, mediaNeedBuckets } = this;
    return admit({ claims, databases, mediaNeedBuckets }, client, request);
  }
}

it("admits what a shard reads as it is read here, and asks once for one configuration", async () => {
  const here = new Situation();
  expect(await here.admit("a")).toBe("7/1");
  expect(await here.admit("a")).toBe("7/1");
  expect(here.asked).toEqual(["check a", "identify a"]);
  await here.admit("a", OWN, "another");
  expect(here.asked).toHaveLength(4);
});

it("refuses a database that belongs to another tenant under another name, before anything connects as its owner would", async () => {
  const here = new Situation();
  await here.admit("a");
  here.meaning = { ...MEANING, database: { ...MEANING.database!, host: "10.0.0.7" } };
  await expect(here.admit("b", OWN.replace("db.example", "10.0.0.7"))).rejects.toMatchObject({
    reason: "DatabaseTaken",
    message: expect.stringContaining("under another name") as string,
  });
});

it("refuses a name that another tenant has without asking any server", async () => {
  const here = new Situation();
  await here.admit("a");
  await expect(here.admit("b")).rejects.toMatchObject({ reason: "DatabaseTaken" });
  expect(here.asked).toEqual(["check a", "identify a", "check b"]);
});

it("refuses a configuration that a shard reads differently", async () => {
  const here = new Situation();
  here.meaning = { ...MEANING, database: { ...MEANING.database!, name: "tenant_neighbour" } };
  await expect(here.admit("a")).rejects.toMatchObject({ reason: "InvalidConfig" });
  here.meaning = { ...MEANING, database: null };
  await expect(here.admit("a")).rejects.toMatchObject({ reason: "InvalidConfig" });
});

it("refuses what is no YAML without asking a shard", async () => {
  const here = new Situation();
  await expect(here.admit("a", "[1, 2")).rejects.toMatchObject({
    code: "InvalidConfig",
    message: expect.stringContaining("line 1") as string,
  });
  expect(here.asked).toEqual([]);
});

it("goes by names alone where a server does not identify its databases", async () => {
  const here = new Situation();
  here.databaseId = undefined;
  expect(await here.admit("a")).toBeUndefined();
  await expect(here.admit("b")).rejects.toMatchObject({ reason: "DatabaseTaken" });
});

it("refuses media in no bucket where a move would lose them, but for a tenant that runs so", async () => {
  const here = new Situation();
  expect(await here.admit("a", OWN, "1")).toBe("7/1");
  here.mediaNeedBuckets = true;
  const lost = { reason: "InvalidConfig", message: expect.stringContaining("media_storage_providers") as string };
  await expect(here.admit("a", OWN, "2")).rejects.toMatchObject(lost);
  expect(await here.admit("a", `enable_media_repo: false\n${OWN}`, "3")).toBe("7/1");
  const bucket = "media";
  here.inEffect = { ...MEANING, bucket };
  await expect(here.admit("a", OWN, "4")).rejects.toMatchObject(lost);
  here.inEffect = MEANING;
  expect(await here.admit("a", OWN, "5")).toBe("7/1");
  here.inEffect = undefined;
  here.meaning = { ...MEANING, bucket };
  expect(await here.admit("a", OWN, "6")).toBe("7/1");
});
