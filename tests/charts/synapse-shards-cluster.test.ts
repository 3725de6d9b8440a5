import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { withoutCluster } from "../kubernetes/support/cluster.ts";
import { applyCrds } from "../kubernetes/support/crds.ts";
import { kubectl, run } from "../kubernetes/support/run.ts";

const NAMESPACE = `rights-${Math.random().toString(36).slice(2, 8)}`;
const CHART = "charts/synapse-shards";

/** What the controller must be able to do; and, around it, what whoever takes it over must not be able to do. */
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
  ["list", "nodes"],
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
    await run("helm", ["uninstall", "cluster-a", "-n", NAMESPACE]);
    await kubectl("delete", "namespace", NAMESPACE, "--wait=false");
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

  it("prevents a controller that cannot do its work", async () => {
    for (const [verb, resource] of ALLOWED)
      expect([verb, resource, await may("cluster-a-controller", verb, resource)]).toEqual([verb, resource, true]);
  });

  it("prevents that whoever takes over the controller gets further", async () => {
    for (const [verb, resource] of DENIED)
      expect([verb, resource, await may("cluster-a-controller", verb, resource)]).toEqual([verb, resource, false]);
    for (const [verb, resource] of ALLOWED)
      expect([verb, resource, await may("cluster-a-controller", verb, resource, "default")]).toEqual([
        verb,
        resource,
        false,
      ]);
  });

  it("prevents rights of gateways and shards, which have none to need", async () => {
    for (const account of ["cluster-a-gateway", "cluster-a-shard"])
      for (const [verb, resource] of [...ALLOWED, ...DENIED])
        expect([account, verb, resource, await may(account, verb, resource)]).toEqual([account, verb, resource, false]);
  });

  it("prevents that this test only believes what it is told: a real request of the controller's is refused", async () => {
    const as = `--as=system:serviceaccount:${NAMESPACE}:cluster-a-controller`;
    await expect(kubectl("get", "secrets", "-n", "kube-system", as)).rejects.toThrow(/forbidden/);
    await expect(kubectl("get", "configmaps", "-n", NAMESPACE, as)).rejects.toThrow(/forbidden/);
    await expect(kubectl("get", "lease", "another", "-n", NAMESPACE, as)).rejects.toThrow(/forbidden/);
    expect(await kubectl("get", "synapsetenants", "-n", NAMESPACE, as)).toBe("");
  });

  it("prevents new tokens at each upgrade: those that were made are kept", async () => {
    const tokens = () => kubectl("get", "secret", "cluster-a-tokens", "-n", NAMESPACE, "-o", "jsonpath={.data}");
    const before = await tokens();
    const values = JSON.stringify({ controller: { replicas: 0 }, gateway: { replicas: 0, logLevel: "debug" } });
    await run("helm", ["upgrade", "cluster-a", CHART, "-n", NAMESPACE, "--skip-crds", "-f", "-"], values);
    expect(await tokens()).toBe(before);
  });
});
