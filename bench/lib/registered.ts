import { join } from "node:path";
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
 * database. Nobody wakes them.
 */
export async function registerSleeping(dataDir: string, like: string, count: number, first = 0): Promise<void> {
  const file = join(dataDir, "store.db");
  const box = new SecretBox(storeKey(join(dataDir, "store.key"), !inspectStore(file).sealed));
  const store = new LocalStore(file, { box });
  try {
    const model = await store.get("Tenant", like);
    if (model?.status.phase !== "Asleep") throw new Error(`${like} does not sleep`);
    for (let index = first; index < first + count; index++) {
      const name = `asleep-${index}`;
      const { spec, status } = JSON.parse(JSON.stringify(model).replaceAll(like, name)) as Tenant;
      const secrets = newTenantSecrets(spec.serverName);
      const hash = configHash({ spec }, secrets);
      Object.assign(status, { configHash: hash, inEffect: { ...status.inEffect, hash } });
      if (status.databaseId !== undefined) status.databaseId += `${index}`;
      // Nothing is due while it is measured.
      status.sleep!.nextWake = { at: timeText(Date.now() + LATER_MS), reason: "its daily housekeeping" };
      await store.writeSecret(name, secrets);
      await store.writeConfigInEffect(name, { hash, config: spec.config, secrets });
      await store.create("Tenant", name, spec, status);
    }
  } finally {
    await store.close();
  }
}
