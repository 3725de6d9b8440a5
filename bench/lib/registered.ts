import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { configHash } from "../../src/controller/start/configs.ts";
import { timeText } from "../../src/model/clock.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import { newTenantSecrets } from "../../src/model/tenant-secrets.ts";
import { LocalStore } from "../../src/platforms/local/store/local-store.ts";
import { inspectStore } from "../../src/platforms/local/store/store-file.ts";
import { SecretBox, storeKey } from "../../src/platforms/local/store/secret-box.ts";

const LATER_MS = 20 * 3_600_000;

/**
 * Registers tenants that sleep in the store of a cluster that is stopped: as the one of that name, which has been awake, but without a
 * database. Nobody wakes them. They are written at once: one by one, each would wait for the disk.
 */
export async function registerSleeping(dataDir: string, like: string, count: number, first = 0): Promise<void> {
  const file = join(dataDir, "store.db");
  const box = new SecretBox(storeKey(join(dataDir, "store.key"), !inspectStore(file).sealed));
  const store = new LocalStore(file, { box });
  const model = await store.get("Tenant", like);
  await store.close();
  if (model?.status.phase !== "Asleep") throw new Error(`${like} does not sleep`);
  const db = new DatabaseSync(file);
  const tenants = db.prepare("INSERT INTO resources (kind, name, version, body) VALUES ('Tenant', ?, 1, ?)");
  const keys = db.prepare("INSERT INTO secrets (tenant, body) VALUES (?, ?)");
  const configs = db.prepare("INSERT INTO configs_in_effect (tenant, body) VALUES (?, ?)");
  db.exec("BEGIN");
  for (let index = first; index < first + count; index++) {
    const name = `asleep-${index}`;
    const tenant = JSON.parse(JSON.stringify(model).replaceAll(like, name)) as Tenant;
    const { metadata, spec, status } = tenant;
    const secrets = newTenantSecrets(spec.serverName);
    const hash = configHash({ spec }, secrets);
    metadata.resourceVersion = "1";
    Object.assign(status, { configHash: hash, inEffect: { ...status.inEffect, hash } });
    if (status.databaseId !== undefined) status.databaseId += `${index}`;
    // Nothing is due while it is measured.
    status.sleep!.nextWake = { at: timeText(Date.now() + LATER_MS), reason: "its daily housekeeping" };
    keys.run(name, box.seal(`secrets/${name}`, JSON.stringify(secrets)));
    configs.run(name, box.seal(`configs/${name}`, JSON.stringify({ hash, config: spec.config, secrets })));
    if (spec.config !== "") spec.config = box.seal(`tenants/${name}`, spec.config);
    tenants.run(name, JSON.stringify(tenant));
  }
  db.exec("COMMIT");
  db.close();
}
