/** What the chart runs before it is uninstalled: refuses while there are tenants, which nobody would stop; otherwise removes the shards. */
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { CustomObjectsApi, type KubernetesListObject } from "@kubernetes/client-node";
import { messageOf, UserError } from "../../model/errors.ts";
import { PLURALS, type SynapseShard, type SynapseTenant } from "./store/resources.ts";
import { attempt, attemptIfThere } from "./api-error.ts";
import { API_GROUP, API_VERSION, apiClient, loadKubeConfig } from "./client.ts";
import { allPages } from "./list-and-watch.ts";
import { readControllerConfig } from "./controller-config.ts";
import { markDeployed } from "./helm-release.ts";

/** The controller stops an empty shard within seconds. */
const WAIT_MS = 90_000;
const POLL_MS = 500;
const NAMES_SHOWN = 5;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { config: { type: "string" }, release: { type: "string" } } });
  if (values.config === undefined)
    throw new UserError("InvalidInput", "usage: uninstall-main.ts --config FILE [--release NAME]");
  const { clusterId, namespace } = await readControllerConfig(values.config);
  const kubeConfig = loadKubeConfig();
  const api = apiClient(kubeConfig, CustomObjectsApi);
  const place = (kind: "Tenant" | "Shard") => ({
    group: API_GROUP,
    version: API_VERSION,
    namespace,
    plural: PLURALS[kind],
  });
  async function list<T extends SynapseTenant | SynapseShard>(kind: "Tenant" | "Shard"): Promise<T[]> {
    const { items } = await attempt(`list ${PLURALS[kind]}`, () =>
      allPages(
        (page) => api.listNamespacedCustomObject({ ...place(kind), ...page }) as Promise<KubernetesListObject<T>>,
      ),
    );
    return items.filter(({ spec }) => spec.clusterId === clusterId);
  }

  const tenants = await list<SynapseTenant>("Tenant");
  if (tenants.length > 0) {
    const isDeployed = values.release !== undefined && (await markDeployed(kubeConfig, namespace, values.release));
    const names = tenants.slice(0, NAMES_SHOWN).map(({ metadata }) => metadata?.name);
    throw new UserError(
      "Conflict",
      `${clusterId} still has ${tenants.length} tenants (${names.join(", ")}${tenants.length > NAMES_SHOWN ? ", …" : ""}): uninstall their releases first; ` +
        "or, to leave them as they are, running without a controller, uninstall with --no-hooks. Nothing was changed" +
        (isDeployed ? "" : "; `helm rollback` makes the release upgradable again"),
    );
  }
  for (const { metadata } of await list<SynapseShard>("Shard"))
    await attemptIfThere("delete a shard", () =>
      api.deleteNamespacedCustomObject({ ...place("Shard"), name: metadata?.name ?? "" }),
    );
  for (const deadline = Date.now() + WAIT_MS; Date.now() < deadline; await sleep(POLL_MS)) {
    if ((await list<SynapseShard>("Shard")).length === 0) return;
  }
  // No controller does it: what belongs to a shard goes with its object.
  for (const shard of await list<SynapseShard>("Shard")) {
    const body = { ...shard, metadata: { ...shard.metadata, finalizers: [] } };
    await attemptIfThere("release a shard", () =>
      api.replaceNamespacedCustomObject({ ...place("Shard"), name: shard.metadata?.name ?? "", body }),
    );
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(
    `${error instanceof UserError ? error.message : ((error as Error).stack ?? messageOf(error))}\n`,
  );
  process.exit(1);
}
