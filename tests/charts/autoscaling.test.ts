import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { find, helm, withoutHelm, type Manifest, type Values } from "./support/matrix-stack.ts";

const CHART = resolve(import.meta.dirname, "../../charts/synapse-shards");
const render = async (gateway: Values): Promise<Manifest[]> =>
  parseAllDocuments(await helm(["template", "synapse-shards", CHART, "-n", "shards"], { gateway }))
    .map((document) => document.toJS() as Manifest | null)
    .filter((manifest) => manifest !== null);

describe.skipIf(withoutHelm)("autoscaling of gateways", () => {
  it("is not there unless it is asked for, and then the Deployment names no number of the values, which would undo it", async () => {
    const before = await render({});
    expect(before.filter(({ kind }) => kind === "HorizontalPodAutoscaler")).toEqual([]);
    expect(find(before, "Deployment", "synapse-shards-gateway").spec.replicas).toBe(2);
    const rendered = await render({ autoscaling: { enabled: true, requestsInFlight: 500 } });
    expect(find(rendered, "Deployment", "synapse-shards-gateway").spec).not.toHaveProperty("replicas");
    expect(find(rendered, "HorizontalPodAutoscaler", "synapse-shards-gateway").spec).toMatchObject({
      scaleTargetRef: { kind: "Deployment", name: "synapse-shards-gateway" },
      minReplicas: 2,
      maxReplicas: 10,
      metrics: [
        { type: "Resource", resource: { name: "cpu", target: { type: "Utilization", averageUtilization: 70 } } },
        { type: "Pods", pods: { target: { type: "AverageValue", averageValue: "500" } } },
      ],
    });
  });

  it("gives each gateway that goes the time that its long polls need", async () => {
    const { spec } = find(await render({ autoscaling: { enabled: true } }), "Deployment", "synapse-shards-gateway");
    expect(spec.template.spec.terminationGracePeriodSeconds).toBeGreaterThan(45);
  });

  it.each([
    [{ minReplicas: 5, maxReplicas: 3 }, {}, /minReplicas is 5 and gateway.autoscaling.maxReplicas is 3/],
    [{ cpuPercent: 0 }, {}, /nothing decides/],
    [{}, { resources: { requests: { cpu: null } } }, /requests.cpu, and there is none/],
  ])("refuses in words what cannot work: %j", async (autoscaling, more, words) => {
    await expect(render({ autoscaling: { enabled: true, ...autoscaling }, ...more })).rejects.toThrow(words);
  });

  it("keeps connections in their zone where that is asked for", async () => {
    const of = async (gateway: Values) =>
      find(await render(gateway), "Service", "synapse-shards-gateway").spec.trafficDistribution;
    expect([await of({}), await of({ service: { trafficDistribution: "PreferClose" } })]).toEqual([
      undefined,
      "PreferClose",
    ]);
  });
});
