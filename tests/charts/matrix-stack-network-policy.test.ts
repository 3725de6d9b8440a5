import { describe, expect, it } from "vitest";
import { find, HOOK, KEYS, merged, MINIMAL, template, withoutHelm, type Values } from "./support/matrix-stack.ts";

const STANDALONE = merged(MINIMAL, { synapse: KEYS });
const DEDICATED = merged(STANDALONE, { synapse: { asTenantHook: HOOK } });
const on = { enabled: true };

interface Rule {
  from?: { namespaceSelector?: any; podSelector?: any; ipBlock?: object }[];
  ports: { port: number | string; endPort?: number }[];
}
const policyOf = async (values: Values) => find(await template(values), "NetworkPolicy", "clinic-a-synapse").spec;
const portsOf = ({ ports }: Rule) => ports.map(({ port, endPort }) => (endPort === undefined ? port : [port, endPort]));

describe.skipIf(withoutHelm)("the network policy of a dedicated homeserver", () => {
  it("lets in the cluster's gateways and controllers, its own namespace, and those who collect metrics", async () => {
    const rendered = await template(DEDICATED);
    const { podSelector, policyTypes, ingress } = find(rendered, "NetworkPolicy", "clinic-a-synapse").spec;
    expect(podSelector).toEqual(find(rendered, "StatefulSet").spec.selector);
    // What it reaches is its own matter: its database and bucket are wherever its owner has them.
    expect(policyTypes).toEqual(["Ingress"]);
    const [clients, metrics] = ingress as [Rule, Rule];
    const { ports } = find(rendered, "StatefulSet").spec.template.spec.containers[0];
    expect([...portsOf(clients), ...portsOf(metrics)]).toEqual(ports.map(({ name }: { name: string }) => name));
    const [cluster, own, ...others] = clients.from!;
    expect(cluster!.namespaceSelector).toEqual({ matchLabels: { "kubernetes.io/metadata.name": "shards" } });
    expect(cluster!.podSelector.matchLabels["app.kubernetes.io/instance"]).toBe(HOOK.clusterId);
    expect(cluster!.podSelector.matchExpressions[0].values).toEqual(["gateway", "controller"]);
    expect(own).toEqual({ podSelector: {} });
    expect(others).toEqual([]);
    const [controller, prometheus] = metrics.from!;
    expect(controller!.podSelector.matchLabels["app.kubernetes.io/component"]).toBe("controller");
    expect(prometheus!.podSelector.matchLabels).toEqual({ "app.kubernetes.io/name": "prometheus" });
    expect(metrics.from).toHaveLength(2);
  });

  it("has each port of metrics with workers, and none that is for the node's probes or for processes alone", async () => {
    const workers = { "event-persister": { ...on, replicas: 2 }, pusher: on };
    const rendered = await template(merged(DEDICATED, { synapse: { workers } }));
    const [, metrics] = find(rendered, "NetworkPolicy", "clinic-a-synapse").spec.ingress as [Rule, Rule];
    expect(portsOf(metrics)).toEqual(["metrics", [8300, 8302], 8405]);
    const served = find(rendered, "Service", "clinic-a-synapse").spec.ports as { name: string; targetPort: unknown }[];
    const told = served.filter(({ name }) => name.startsWith("metrics")).map(({ targetPort }) => targetPort);
    expect(told).toEqual(["metrics", 8300, 8301, 8302, 8405]);
  });

  it("has further peers that the values name", async () => {
    const from = [{ podSelector: {}, namespaceSelector: { matchLabels: { team: "bridges" } } }];
    const metricsFrom = [{ ipBlock: { cidr: "10.1.0.0/16" } }];
    const { ingress } = await policyOf(merged(DEDICATED, { networkPolicies: { from, metricsFrom } }));
    const [clients, metrics] = ingress as [Rule, Rule];
    expect(clients.from!.slice(2)).toEqual(from);
    // Instead of the default.
    expect(metrics.from!.slice(1)).toEqual(metricsFrom);
  });

  it("leaves clients alone where no gateway is before it, and is not there for a tenant or where it is not wanted", async () => {
    const [clients, metrics] = (await policyOf(STANDALONE)).ingress as [Rule, Rule];
    expect(clients.from).toBeUndefined();
    expect(metrics.from).toHaveLength(1);
    const tenant = merged(STANDALONE, { synapse: { asTenantHook: { enabled: true, ...HOOK } } });
    for (const values of [tenant, merged(DEDICATED, { networkPolicies: { enabled: false } })])
      expect((await template(values)).map(({ kind }) => kind)).not.toContain("NetworkPolicy");
  });
});
