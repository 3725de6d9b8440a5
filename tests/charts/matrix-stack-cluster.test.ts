import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { applyCrds } from "../kubernetes/support/crds.ts";
import { withoutCluster } from "../kubernetes/support/cluster.ts";
import { CHART, content, helm, merged, MINIMAL, type Manifest, type Values } from "./support/matrix-stack.ts";

const run = promisify(execFile);
const id = randomBytes(3).toString("hex");
const namespace = `matrix-stack-${id}`;
const shards = `matrix-stack-shards-${id}`;
const release = `clinic-${id}`;
const hook = { clusterId: "some-cluster", namespace: shards };

async function get(kind: string, name: string, where = namespace): Promise<Manifest | undefined> {
  const { stdout } = await run("kubectl", ["get", kind, name, "-n", where, "-o", "json", "--ignore-not-found"]);
  return stdout.trim() === "" ? undefined : (JSON.parse(stdout) as Manifest);
}

// Pods are not waited for: this is about what the chart leaves in the cluster.
const upgrade = (values: Values) =>
  helm(
    ["upgrade", "--install", release, CHART, "--namespace", namespace],
    merged(MINIMAL, { serverName: `${release}.example` }, values),
  );
const asTenant = (enabled: boolean): Values => ({ synapse: { asTenantHook: { enabled, ...hook } } });

describe.skipIf(withoutCluster)("chart matrix-stack in a cluster", () => {
  beforeAll(async () => {
    await applyCrds();
    for (const name of [namespace, shards]) await run("kubectl", ["create", "namespace", name]);
  }, 240_000);
  afterAll(async () => {
    await run("helm", ["uninstall", release, "-n", namespace]).catch(() => {});
    await run("kubectl", ["delete", "namespace", namespace, shards, "--wait=false"]);
  }, 240_000);

  it("makes keys once, and keeps them through upgrades, transitions and a rollback", async () => {
    await upgrade(asTenant(true));
    const made = (await get("secret", `${release}-generated`))!;
    expect(Object.keys(made.data ?? {}).toSorted()).toEqual([
      "SYNAPSE_FORM_SECRET",
      "SYNAPSE_MACAROON",
      "SYNAPSE_REGISTRATION_SHARED_SECRET",
      "SYNAPSE_SIGNING_KEY",
    ]);
    const signingKey = content(made, "SYNAPSE_SIGNING_KEY");
    expect(signingKey).toMatch(/^ed25519 a_[A-Za-z0-9]{6} [A-Za-z0-9+/]{43}$/);
    const tenant = (await get("secret", `${release}-synapse-tenant`))!;
    expect((await get("synapsetenant", release, shards))!.spec).toMatchObject({
      revision: 1,
      clusterId: "some-cluster",
    });

    await upgrade(asTenant(false));
    expect((await get("secret", `${release}-synapse-tenant`))!.data).toEqual(tenant.data);
    expect((await get("synapsetenant", release, shards))!.spec).toMatchObject({
      revision: 2,
      dedicated: { address: `${release}-synapse.${namespace}.svc.cluster.local:8008`, metricsPort: 9001 },
    });
    const pod = (await get("statefulset", `${release}-synapse`))!.spec.template;

    await upgrade(asTenant(false));
    expect((await get("configmap", `${release}-synapse-fence`))!.data).toEqual({ revision: "3" });
    expect((await get("statefulset", `${release}-synapse`))!.spec.template).toEqual(pod);

    await upgrade({});
    expect(await get("synapsetenant", release, shards)).toBeUndefined();
    expect(await get("role", `${release}-synapse-tenant`)).toBeUndefined();
    expect((await get("statefulset", `${release}-synapse`))!.spec.template).toEqual(pod);

    await run("helm", ["rollback", release, "1", "-n", namespace]);
    expect(await get("statefulset", `${release}-synapse`)).toBeUndefined();
    // Each of them has made sure that nothing of before can come back.
    expect((await get("synapsetenant", release, shards))!.spec.dedicated).toBeUndefined();
    expect((await get("secret", `${release}-generated`))!.data).toEqual(made.data);
  }, 240_000);

  it("takes everything of a release along when it is uninstalled, in both namespaces, but its keys", async () => {
    await upgrade(asTenant(false));
    await run("helm", ["uninstall", release, "-n", namespace, "--wait"]);
    for (const where of [namespace, shards]) {
      const kinds = "secret,configmap,service,statefulset,ingress,serviceaccount,synapsetenant";
      const { stdout } = await run("kubectl", ["get", kinds, "-n", where, "-o", "name"]);
      const left = stdout.split("\n").filter((name) => name.includes(release));
      expect(left).toEqual(where === namespace ? [`secret/${release}-generated`] : []);
    }
  }, 240_000);
});
