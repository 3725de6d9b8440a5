import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { Controller } from "../src/controller/controller.ts";
import type { ConfigInEffect, ConfigMeaning } from "../src/model/config-meaning.ts";
import type { Shard } from "../src/model/shard.ts";
import type { Tenant } from "../src/model/tenant.ts";
import type { TenantSecretData } from "../src/model/tenant-secrets.ts";
import { configHash } from "../src/controller/start/configs.ts";
import { LocalStore } from "../src/platforms/local/store/local-store.ts";
import { FakeProcess, FakeShard, FakeWorld } from "../tests/support/fake-world.ts";
import { stringify } from "yaml";
import type { Bench, BenchOptions, BenchResult } from "./lib/result.ts";

const PER_SHARD = 25;
const VERSION = "1.163.2";
const AT_REST_SECONDS = 60;
/** Until every shard has been asked twice: from then on its load is known and no longer written. */
const SETTLE_SECONDS = 100;
const EPOCH = 3;
/** A restart that takes longer has failed, and is reported with this duration. */
const RESTART_WITHIN_SECONDS = 300;

/**
 * The controller with its real store, a file, and shards that are objects in this process: what it costs on its own.
 * The shards' answers are computed in this process too, and count against it.
 */
export const bench: Bench = {
  name: "controller",
  title: "The controller with very many tenants",
  async run(options: BenchOptions): Promise<BenchResult> {
    const tenants = options.quick ? 1_000 : 100_000;
    const shards = tenants / PER_SHARD;
    const directory = await mkdtemp(join(tmpdir(), "synapse-shards-bench-"));
    try {
      const world = seeded(join(directory, "store.db"), tenants);
      const process = new FakeProcess(world, { policy: { maxShardsPerSynapseImageTag: shards } });
      // As often as in production; tests poll faster.
      process.context.timing.shardPoll = 1;
      const controller = new Controller(process.context);
      const restartSeconds = await restart(controller, process, tenants);
      options.log(`back after ${restartSeconds.toFixed(1)} s`);
      await sleep((options.quick ? 1 : SETTLE_SECONDS) * 1000);
      const share = await cpuShare(AT_REST_SECONDS);
      options.log(`at rest: ${(share * 100).toFixed(1)} % of a core`);
      const events = await world.store.listEvents({ limit: 1 });
      await controller.stop();
      process.kill();
      await world.store.close();
      const what = `${tenants} tenants on ${shards} shards`;
      return {
        name: this.name,
        title: this.title,
        figures: [
          {
            what: `restart, ${what}: until all routes are out and all shards are known`,
            value: restartSeconds,
            unit: "s",
            target: { at: "most", value: 30 },
          },
          {
            what: `processor time at rest, ${what}`,
            value: share * 100,
            unit: "% of a core",
            target: { at: "most", value: 5 },
            note: `over ${AT_REST_SECONDS} s, with simulated shards in the same process`,
          },
        ],
        plots: [],
        raw: { tenants, shards, restartSeconds, share, changedAnything: events.length > 0 },
      };
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  },
};

async function restart(controller: Controller, { context }: FakeProcess, tenants: number): Promise<number> {
  const begin = performance.now();
  const seconds = (): number => (performance.now() - begin) / 1000;
  await controller.start();
  for (;;) {
    // Every shard has been asked: only then does the controller see what runs.
    const asked = context.shardClients.size === tenants / PER_SHARD;
    if (asked && context.feed.get(`t-${tenants - 1}`)?.state === "serving") return seconds();
    if (seconds() > RESTART_WITHIN_SECONDS) return seconds();
    await sleep(250);
  }
}

async function cpuShare(forSeconds: number): Promise<number> {
  const begin = performance.now();
  const before = process.cpuUsage();
  await sleep(forSeconds * 1000);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 / (performance.now() - begin);
}

/** A world that settled long ago. It is written at once: creating it tenant by tenant would measure the disk. */
function seeded(file: string, count: number): FakeWorld {
  new LocalStore(file).close().catch(() => {});
  const db = new DatabaseSync(file);
  const insert = db.prepare("INSERT INTO resources (kind, name, version, body) VALUES (?, ?, 1, ?)");
  const configs = db.prepare("INSERT INTO configs_in_effect (tenant, body) VALUES (?, ?)");
  const keys = db.prepare("INSERT INTO secrets (tenant, body) VALUES (?, ?)");
  const world = new FakeWorld();
  db.exec("BEGIN");
  for (let s = 0; s < count / PER_SHARD; s++) {
    const there = new FakeShard(`${VERSION}-${s}`, VERSION);
    insert.run("Shard", there.name, JSON.stringify(shardResource(there)));
    world.shards.set(there.name, there);
  }
  for (let t = 0; t < count; t++) {
    const tenant = tenantResource(`t-${t}`, `${VERSION}-${Math.floor(t / PER_SHARD)}`);
    const { name } = tenant.metadata;
    const { shard = "", address = "" } = tenant.status;
    insert.run("Tenant", name, JSON.stringify(tenant));
    const secrets = secretsOf(name);
    keys.run(name, JSON.stringify(secrets));
    const inEffect: ConfigInEffect = { hash: tenant.status.configHash!, config: tenant.spec.config, secrets };
    configs.run(name, JSON.stringify(inEffect));
    world.fences.set(name, { epoch: EPOCH, shard });
    world.shards.get(shard)?.tenants.set(name, {
      name,
      serverName: tenant.spec.serverName,
      phase: "running",
      epoch: EPOCH,
      address,
      error: null,
    });
  }
  db.exec("COMMIT");
  db.close();
  Object.assign(world, { store: new LocalStore(file) });
  return world;
}

/** As large as one on Kubernetes, which names its database and its bucket. */
function configOf(name: string): string {
  return stringify({
    public_baseurl: `https://matrix.${name}.localhost/`,
    database: {
      name: "psycopg2",
      args: { host: "postgres.localhost", port: 5432, dbname: name, user: name, password: "secret", sslmode: "prefer" },
    },
    media_storage_providers: [
      {
        module: "s3_storage_provider.S3StorageProviderBackend",
        store_local: true,
        store_remote: true,
        store_synchronous: true,
        config: { bucket: name, endpoint_url: "https://s3.localhost", access_key_id: "id", secret_access_key: "key" },
      },
    ],
    enable_registration: false,
    url_preview_enabled: true,
  });
}

/** Of the right form: they are read and hashed, not used. */
function secretsOf(name: string): TenantSecretData {
  return {
    serverName: `${name}.localhost`,
    signingKey: "ed25519 a_0001 hwVOQXMTWpPh0b0ZYHvsgsJPTHtlXeXvlcDkKJnAPXQ",
    macaroonSecretKey: "macaroon",
    formSecret: "form",
    registrationSharedSecret: "registration",
    databasePassword: "database",
  };
}

/** As a shard read it when the tenant was started. */
function meaningOf(name: string): ConfigMeaning {
  return {
    database: { host: "postgres.localhost", port: 5432, name, user: name },
    hosts: [`${name}.localhost`, `matrix.${name}.localhost`],
    publicBaseUrl: `https://matrix.${name}.localhost/`,
    bucket: `https://s3.localhost/${name}`,
  };
}

const longAgo = new Date(Date.now() - 3_600_000).toISOString();
const metadataOf = (name: string) => ({ name, resourceVersion: "1", generation: 1, creationTimestamp: longAgo });

function shardResource({ name, instance }: FakeShard): Shard {
  return {
    kind: "Shard",
    metadata: metadataOf(name),
    spec: { release: VERSION },
    status: {
      phase: "Ready",
      reason: "",
      message: "",
      failures: 0,
      lastAssignmentChange: longAgo,
      address: `http://${name}`,
      instance,
      lastSeen: longAgo,
    },
  };
}

function tenantResource(name: string, shard: string): Tenant {
  const spec = {
    serverName: `${name}.localhost`,
    release: VERSION,
    config: configOf(name),
    reclaimPolicy: "Retain" as const,
  };
  const hash = configHash({ spec }, secretsOf(name));
  return {
    kind: "Tenant",
    metadata: metadataOf(name),
    spec,
    status: {
      phase: "Running",
      reason: "",
      message: "",
      shard,
      epoch: EPOCH,
      address: `${shard}:${EPOCH}`,
      schemaRelease: VERSION,
      observedGeneration: 1,
      configHash: hash,
      inEffect: { hash, meaning: meaningOf(name) },
      provisioned: true,
      assignedAt: longAgo,
      failures: 0,
    },
  };
}
