import { describe, expect, test } from "vitest";
import {
  hostOf,
  shardSecret,
  shardService,
  shardSettings,
  shardStatefulSet,
} from "../../../../src/platforms/kubernetes/launcher/manifests.ts";
import { labelValue, podNameOf, shardObjectName } from "../../../../src/platforms/kubernetes/launcher/names.ts";
import { ShardPodOptionsSchema } from "../../../../src/platforms/kubernetes/launcher/pod-options.ts";

const IDENTITY = {
  clusterId: "synapse-shards",
  namespace: "shards",
  shard: "1.163.2-0",
  imageTag: "1.163.2",
  managerVersion: "1.0.0",
};
const options = (over: object = {}) => ShardPodOptionsSchema.parse(over);
const podOf = (over: object = {}) => shardStatefulSet(IDENTITY, options(over)).spec!.template.spec!;
const containerOf = (over: object = {}) => podOf(over).containers[0]!;

describe("names", () => {
  test("gives names that are DNS labels and short enough for a StatefulSet's pods", () => {
    expect(shardObjectName("synapse-shards", "1.163.2-0")).toBe("synapse-shards-shard-1-163-2-0");
    for (const clusterId of ["a", "a".repeat(53), `${"a".repeat(35)}-b-c`])
      for (const shard of ["1.163.2-0", "v1.163.2-10", "1.163.2-rc.1-3", `1.163.2-${"x".repeat(60)}-4`]) {
        const name = shardObjectName(clusterId, shard);
        expect(name).toMatch(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/);
        expect(podNameOf(name).length + "-0123456789".length).toBeLessThanOrEqual(65);
        expect(name.length).toBeLessThanOrEqual(52);
      }
  });

  test("gives each shard objects of its own", () => {
    const shards = ["1.163.2-rc.1-0", "1.163.2-rc-1-0", "1.163.2.rc.1-0", "1.163.2-1-0", "1.163.2-1", "1.163.2-10"];
    expect(new Set(shards.map((shard) => shardObjectName("c", shard))).size).toBe(shards.length);
  });

  test("gives labels that the API server accepts", () => {
    expect(labelValue(`1.163.2-${"x".repeat(100)}`).length).toBeLessThanOrEqual(63);
    expect(labelValue("1.163.2-0")).toBe("1.163.2-0");
  });
});

describe("a shard's objects", () => {
  test("finds a shard at the same name after its pod was replaced", () => {
    expect(hostOf(IDENTITY, "cluster.local")).toBe(
      "synapse-shards-shard-1-163-2-0-0.synapse-shards-shard-1-163-2-0.shards.svc.cluster.local",
    );
    expect(shardService(IDENTITY, options()).spec).toMatchObject({ clusterIP: "None", publishNotReadyAddresses: true });
    const settings = JSON.parse(shardSecret(IDENTITY, options(), "t").stringData!["shard.json"]!) as object;
    expect(settings).toMatchObject({ name: "1.163.2-0", advertiseHost: hostOf(IDENTITY, "cluster.local") });
  });

  test("bounds the media cache, and says so only where it is not the default", () => {
    const settings = (given: object) =>
      JSON.parse(shardSettings(IDENTITY, ShardPodOptionsSchema.parse(given))) as Record<string, unknown>;
    expect(Object.keys(settings({})).filter((key) => key.startsWith("media"))).toEqual([]);
    expect(settings({ mediaCache: { maxMiB: 100, maxAgeHours: 2 } })).toMatchObject({
      mediaCacheBytes: 104_857_600,
      mediaCacheSeconds: 7200,
    });
  });

  test("restarts no shard that serves for a change of the chart's values", () => {
    expect(shardStatefulSet(IDENTITY, options()).spec).toMatchObject({
      replicas: 1,
      podManagementPolicy: "Parallel",
      updateStrategy: { type: "OnDelete" },
    });
  });

  test("gives a shard no right that it does not need", () => {
    expect(podOf()).toMatchObject({
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: "RuntimeDefault" } },
    });
    expect(containerOf().securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
  });

  test("applies an administrator's options", () => {
    const wishes = {
      image: {
        registry: "registry.example",
        repository: "mine/shard",
        pullPolicy: "Always",
        pullSecrets: [{ name: "s" }],
      },
      resources: { limits: { memory: "2Gi" } },
      nodeSelector: { disk: "fast" },
      tolerations: [{ operator: "Exists" }],
      affinity: { nodeAffinity: {} },
      extraEnv: [{ name: "HTTPS_PROXY", value: "http://proxy" }],
      annotations: { "a.example/b": "c" },
      labels: { team: "matrix", "app.kubernetes.io/name": "not ours" },
      serviceAccountName: "shard",
      priorityClassName: "high",
      podSecurityContext: { runAsUser: null, fsGroup: 7 },
      topologySpreadConstraints: [
        { maxSkew: 1, topologyKey: "kubernetes.io/hostname", whenUnsatisfiable: "ScheduleAnyway" },
      ],
    };
    expect(podOf(wishes)).toMatchObject({
      nodeSelector: wishes.nodeSelector,
      tolerations: wishes.tolerations,
      affinity: wishes.affinity,
      imagePullSecrets: [{ name: "s" }],
      serviceAccountName: "shard",
      priorityClassName: "high",
      securityContext: { runAsUser: null, fsGroup: 7, runAsNonRoot: true },
    });
    expect(podOf(wishes).topologySpreadConstraints).toMatchObject([
      { maxSkew: 1, labelSelector: { matchLabels: { "synapse-shards.io/cluster": "synapse-shards" } } },
    ]);
    expect(containerOf(wishes)).toMatchObject({
      image: "registry.example/mine/shard:1.163.2",
      imagePullPolicy: "Always",
      env: wishes.extraEnv,
      resources: wishes.resources,
    });
    const { metadata } = shardStatefulSet(IDENTITY, options(wishes)).spec!.template;
    expect(metadata).toMatchObject({
      annotations: wishes.annotations,
      labels: { team: "matrix", "app.kubernetes.io/name": "synapse-shards", "synapse-shards.io/image-tag": "1.163.2" },
    });
  });

  test("gives a shard the certificate authorities that are named, and none otherwise", () => {
    const trustedCAs = { configMap: "our-ca", key: "bundle.pem" };
    expect(podOf({ trustedCAs }).volumes).toContainEqual({ name: "ca", configMap: { name: "our-ca" } });
    expect(containerOf({ trustedCAs }).env).toEqual([
      { name: "PGSSLROOTCERT", value: "/etc/synapse-shards/ca/bundle.pem" },
      { name: "AWS_CA_BUNDLE", value: "/etc/synapse-shards/ca/bundle.pem" },
    ]);
    expect(containerOf().env).toEqual([]);
    expect(podOf().volumes?.map(({ name }) => name)).not.toContain("ca");
  });

  test("bounds the local volumes of a shard, with room for what the media cache takes between two looks", () => {
    const limits = (over: object) => podOf(over).volumes?.flatMap(({ emptyDir }) => emptyDir?.sizeLimit ?? []);
    expect(limits({})).toEqual(["512Mi", "6144Mi", "4096Mi"]);
    expect(limits({ mediaCache: { maxMiB: 100 }, volumes: { tmpMiB: 64 } })).toEqual(["512Mi", "2248Mi", "64Mi"]);
  });

  test("refuses a misspelt option", () => {
    expect(ShardPodOptionsSchema.safeParse({ nodeSelektor: {} }).success).toBe(false);
    expect(ShardPodOptionsSchema.safeParse({ image: { pullPolicy: "Sometimes" } }).success).toBe(false);
  });
});
