import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { withoutCluster } from "../kubernetes/support/cluster.ts";
import { applyCrds } from "../kubernetes/support/crds.ts";
import { kubectl, run } from "../kubernetes/support/run.ts";
import { until } from "../support/patience.ts";

const NAMESPACE = `rights-${Math.random().toString(36).slice(2, 8)}`;
const HOME = `${NAMESPACE}-home`;
const CHART = "charts/synapse-shards";
/** Since Helm 4, by default. */
const appliesOnServer = /^v(?:[4-9]|\d\d)/.test(
  spawnSync("helm", ["version", "--short"], { encoding: "utf8" }).stdout ?? "",
);

/** What the controller must be able to do; and what nobody must be able to do who takes it over. */
const ALLOWED: [string, string][] = [
  ["get", "synapsetenants.synapse-shards.io"],
  ["watch", "synapseshards.synapse-shards.io"],
  ["update", "synapsetenants.synapse-shards.io/status"],
  ["create", "statefulsets.apps"],
  ["delete", "services"],
  ["list", "secrets"],
  ["get", "pods/log"],
  ["create", "events.events.k8s.io"],
];
const DENIED: [string, string][] = [
  ["create", "pods"],
  ["create", "pods/exec"],
  ["create", "pods/portforward"],
  ["create", "pods/attach"],
  ["update", "pods"],
  ["patch", "pods"],
  ["create", "deployments.apps"],
  ["patch", "deployments.apps"],
  ["create", "daemonsets.apps"],
  ["create", "jobs.batch"],
  ["create", "serviceaccounts"],
  ["create", "serviceaccounts/token"],
  ["create", "roles.rbac.authorization.k8s.io"],
  ["bind", "roles.rbac.authorization.k8s.io"],
  ["create", "rolebindings.rbac.authorization.k8s.io"],
  ["get", "configmaps"],
  ["get", "persistentvolumeclaims"],
  ["deletecollection", "secrets"],
  ["update", "customresourcedefinitions.apiextensions.k8s.io"],
  ["update", "nodes"],
  ["list", "namespaces"],
];

describe.skipIf(withoutCluster)("rights of the chart's service accounts (needs KUBECONFIG)", () => {
  beforeAll(async () => {
    await applyCrds();
    await kubectl("create", "namespace", NAMESPACE);
    const values = JSON.stringify({ controller: { replicas: 0 }, gateway: { replicas: 0 } });
    await run("helm", ["install", "cluster-a", CHART, "-n", NAMESPACE, "--skip-crds", "-f", "-"], values);
  });
  afterAll(async () => {
    await run("helm", ["uninstall", "cluster-a", "-n", NAMESPACE, "--no-hooks"]);
    await kubectl("delete", "synapsetenants", "--all", "-n", NAMESPACE, "--timeout=30s").catch(() => {});
    await kubectl("delete", "namespace", NAMESPACE, HOME, "--wait=false", "--ignore-not-found");
  });

  /** A request of its own, refused or not by the API server. */
  const may = (account: string, verb: string, resource: string, namespace = NAMESPACE): Promise<boolean> =>
    kubectl(
      "auth",
      "can-i",
      verb,
      resource,
      "-n",
      namespace,
      `--as=system:serviceaccount:${NAMESPACE}:${account}`,
    ).then(
      (answer) => answer.trim() === "yes",
      () => false,
    );

  it("has as many gateways when autoscaling is switched on as it had before", async () => {
    const args = ["template", "cluster-a", CHART, "-n", NAMESPACE, "--set=gateway.autoscaling.enabled=true"];
    const show = "--show-only=templates/gateway/deployment.yaml";
    const of = async (...more: string[]) =>
      (parse(await run("helm", [...args, show, ...more])) as { spec: { replicas?: number } }).spec.replicas;
    // Those that it has are none here, and by the values there would be two.
    expect([await of("--dry-run=server"), await of()]).toEqual([0, undefined]);
  });

  it.skipIf(!appliesOnServer)(
    "leaves the number of gateways to the autoscaler over upgrades and rollbacks, and takes it back by force alone",
    async () => {
      const namespace = `${NAMESPACE}-scaled`;
      const gateway = "deployment/cluster-b-gateway";
      // Pods that start nowhere: the number is what counts.
      const values = (gateway: object) =>
        JSON.stringify({ controller: { replicas: 0 }, gateway: { ...gateway, nodeSelector: { nowhere: "true" } } });
      const upgrade = (gateway: object, ...more: string[]) => {
        const args = ["upgrade", "--install", "cluster-b", CHART, "-n", namespace, "--skip-crds", ...more, "-f", "-"];
        return run("helm", args, values(gateway));
      };
      const rollback = (revision: number, ...more: string[]) =>
        run("helm", ["rollback", "cluster-b", `${revision}`, "-n", namespace, ...more]);
      const number = async () =>
        Number(await kubectl("-n", namespace, "get", gateway, "-o", "jsonpath={.spec.replicas}"));
      /** As an autoscaler does it. */
      const scaleTo = (replicas: number) => kubectl("-n", namespace, "scale", gateway, `--replicas=${replicas}`);
      // It never decides: nothing measures here.
      const on = { autoscaling: { enabled: true } };
      try {
        await kubectl("create", "namespace", namespace);
        await upgrade({ replicas: 2 });
        await upgrade(on);
        expect(await number()).toBe(2);
        await scaleTo(5);
        await upgrade({ ...on, logLevel: "debug" });
        await upgrade({ ...on, logLevel: "warn" });
        expect(await number()).toBe(5);
        await scaleTo(3);
        await rollback(3);
        expect(await number()).toBe(3);
        // What asks for another number than there is has to say that it means it.
        await expect(rollback(1)).rejects.toThrow(/conflict/);
        await expect(upgrade({ replicas: 2 })).rejects.toThrow(/conflict/);
        expect(await number()).toBe(3);
        await upgrade({ replicas: 2 }, "--force-conflicts");
        expect(await number()).toBe(2);
      } finally {
        await run("helm", ["uninstall", "cluster-b", "-n", namespace, "--no-hooks"]).catch(() => {});
        await kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found");
      }
    },
  );

  it("lets the controller do its work", async () => {
    for (const [verb, resource] of ALLOWED)
      expect([verb, resource, await may("cluster-a-controller", verb, resource)]).toEqual([verb, resource, true]);
  });

  it("lets nobody who takes over the controller get further", async () => {
    for (const [verb, resource] of DENIED)
      expect([verb, resource, await may("cluster-a-controller", verb, resource)]).toEqual([verb, resource, false]);
    for (const [verb, resource] of ALLOWED)
      expect([verb, resource, await may("cluster-a-controller", verb, resource, "default")]).toEqual([
        verb,
        resource,
        false,
      ]);
  });

  it("gives gateways and shards no rights", async () => {
    for (const account of ["cluster-a-gateway", "cluster-a-shard"])
      for (const [verb, resource] of [...ALLOWED, ...DENIED])
        expect([account, verb, resource, await may(account, verb, resource)]).toEqual([account, verb, resource, false]);
  });

  it("refuses real requests of the controller's, too", async () => {
    const as = `--as=system:serviceaccount:${NAMESPACE}:cluster-a-controller`;
    await expect(kubectl("get", "secrets", "-n", "kube-system", as)).rejects.toThrow(/forbidden/);
    await expect(kubectl("get", "configmaps", "-n", NAMESPACE, as)).rejects.toThrow(/forbidden/);
    await expect(kubectl("get", "lease", "another", "-n", NAMESPACE, as)).rejects.toThrow(/forbidden/);
    expect(await kubectl("get", "synapsetenants", "-n", NAMESPACE, as)).toBe("");
  });

  it("lets those who may create tenants name no Secret that they may not read themselves", async () => {
    const as = "--as=team-a";
    await kubectl("create", "rolebinding", "team-a", "-n", NAMESPACE, "--role=cluster-a-tenants", "--user=team-a");
    await kubectl("create", "namespace", HOME);
    const tenant = (name: string, spec: object) =>
      JSON.stringify({
        apiVersion: "synapse-shards.io/v1alpha1",
        kind: "SynapseTenant",
        metadata: { name, namespace: NAMESPACE },
        spec: { clusterId: "cluster-a", serverName: `${name}.example`, ...spec },
      });
    const create = (name: string, spec: object) => run("kubectl", [as, "create", "-f", "-"], tenant(name, spec));
    const mine = { secretName: "mine", secretNamespace: HOME };
    const refs = { ...mine, secretRefs: [{ for: "homeserver.yaml", path: "/a", name: "theirs", key: "k" }] };
    // A policy takes a moment to be in force.
    await until(
      "it is refused",
      () =>
        create("x", mine).then(
          () => kubectl("delete", "synapsetenant", "x", "-n", NAMESPACE),
          (error: unknown) => String(error).includes(`you may not read the Secret ${HOME}/mine`),
        ),
      30,
    );
    await kubectl("create", "role", "mine", "-n", HOME, "--verb=get", "--resource=secrets", "--resource-name=mine");
    await kubectl("create", "rolebinding", "mine", "-n", HOME, "--role=mine", "--user=team-a");
    await until(
      "it is let in",
      () =>
        create("a", mine).then(
          () => true,
          () => false,
        ),
      10,
    );
    await expect(create("b", refs)).rejects.toThrow("you may not read the Secrets of that namespace");
    const many = Array.from({ length: 64 }, (_, index) => ({ ...refs.secretRefs[0], path: `/a${index}` }));
    const text = tenant("d", { ...mine, secretRefs: many });
    await expect(run("kubectl", ["create", "-f", "-"], text)).resolves.toContain("created");
    await create("c", {});
    // What is not about Secrets is not asked.
    await run("kubectl", [as, "-n", NAMESPACE, "label", "synapsetenant", "a", "x=y"]);
    expect(await may("cluster-a-shard", "create", "synapsetenants.synapse-shards.io")).toBe(false);
  }, 240_000);
});
