import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KubeConfig, type V1Secret } from "@kubernetes/client-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cleanUp } from "../../../bench/lib/cleanup.ts";
import { ControlPlane, findPrograms } from "../../../bench/lib/control-plane.ts";
import { ControllerReplica, TOKENS } from "../../../bench/lib/controller-replica.ts";
import { SimulatedFleet } from "../../../bench/lib/simulated-fleet.ts";
import { loopbackIp, SimulatedShards } from "../../../bench/lib/simulated-shards.ts";
import { all, allPages } from "../../../src/platforms/kubernetes/list-and-watch.ts";
import { TENANT_LABEL } from "../../../src/platforms/kubernetes/store/labelled-secrets.ts";
import type { SynapseTenant } from "../../../src/platforms/kubernetes/store/resources.ts";
import { PATIENCE_MS } from "../../support/patience.ts";

const CLUSTER = { clusterId: "scale", namespace: "scale" };
const TENANTS = 60;
const programs = findPrograms();

describe.skipIf("missing" in programs)("a fleet on a Kubernetes API server (needs etcd and kube-apiserver)", () => {
  let plane: ControlPlane;
  let fleet: SimulatedFleet;
  let shards: SimulatedShards;
  let directory: string;
  const config = new KubeConfig();
  beforeAll(async () => {
    if ("missing" in programs) return;
    directory = await mkdtemp(join(tmpdir(), "scale-test-"));
    plane = await ControlPlane.start(directory, programs);
    const database = { host: "127.0.0.1", port: 1 };
    fleet = new SimulatedFleet({
      ...CLUSTER,
      tenants: TENANTS,
      perShard: 25,
      database,
      podIp: (shard) => loopbackIp(shard, 58),
    });
    shards = await SimulatedShards.start(fleet);
    await fleet.make(plane.client, () => {});
    await plane.client.create(fleet.secretPath(), TOKENS);
    config.loadFromFile(await plane.kubeconfig());
  });
  afterAll(async () => {
    await cleanUp();
    if (directory !== undefined) await rm(directory, { recursive: true, force: true });
  });

  it("is read as a stream, with the version from which it goes on, and without who wrote which field", async () => {
    const path = fleet.customPath("synapsetenants");
    const none = () => Promise.reject(new Error("this API server can stream"));
    const { items, metadata } = await all<SynapseTenant>(config, path, none, undefined);
    expect(new Set(items.map((tenant) => tenant.metadata?.name)).size).toBe(TENANTS);
    expect(items.filter((tenant) => tenant.metadata?.managedFields)).toEqual([]);
    expect(Number(metadata?.resourceVersion)).toBeGreaterThan(0);
    const secrets = await all<V1Secret>(config, fleet.secretPath(), none, TENANT_LABEL);
    expect(secrets.items).toHaveLength(2 * TENANTS);
  });

  it("is read in pages that together have each object once", async () => {
    const path = fleet.customPath("synapsetenants");
    const list = ({ limit, _continue: next = "" }: { limit: number; _continue?: string }) =>
      plane.client.get<{ items: SynapseTenant[]; metadata: object }>(
        `${path}?limit=${limit}&continue=${encodeURIComponent(next)}`,
      );
    const { items } = await allPages<SynapseTenant>(list, 7);
    expect(new Set(items.map((tenant) => tenant.metadata?.name)).size).toBe(TENANTS);
    expect(items).toHaveLength(TENANTS);
  });

  it("costs no write to a tenant or its Secrets when a controller starts, and none when another takes over", async () => {
    const kubeconfig = await plane.kubeconfig();
    const versions = async () => {
      const { items } = await plane.client.get<{ items: SynapseTenant[] }>(fleet.customPath("synapsetenants"));
      const secrets = await plane.client.get<{ items: V1Secret[] }>(
        `${fleet.secretPath()}?labelSelector=${encodeURIComponent(TENANT_LABEL)}`,
      );
      return [...items, ...secrets.items].map(({ metadata }) => [metadata?.name, metadata?.resourceVersion]);
    };
    const before = await versions();
    const settings = { ...CLUSTER, hibernation: { afterIdleSeconds: 0 }, avgShardsLoadRedistributionThreshold: 0 };
    const last = fleet.nameOf(TENANTS - 1);
    for (let turn = 0; turn < 2; turn++) {
      shards.forget();
      const controller = await ControllerReplica.start(directory, kubeconfig, settings);
      await controller.leads(last, PATIENCE_MS);
      await controller.until("asked all shards twice", PATIENCE_MS, async () => shards.timesAsked >= 2);
      await controller.kill();
    }
    expect(await versions()).toEqual(before);
  });
});
