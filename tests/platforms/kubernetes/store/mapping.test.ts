import { describe, expect, it } from "vitest";
import type { Fleet } from "../../../../src/model/fleet.ts";
import type { Shard } from "../../../../src/model/shard.ts";
import type { Tenant } from "../../../../src/model/tenant.ts";
import { conditionsOf } from "../../../../src/platforms/kubernetes/store/conditions.ts";
import {
  fleetOf,
  newObject,
  objectName,
  secretNameOf,
  shardOf,
  tenantOf,
  withSpec,
  withStatus,
} from "../../../../src/platforms/kubernetes/store/mapping.ts";
import type {
  SynapseFleet,
  SynapseShard,
  SynapseTenant,
} from "../../../../src/platforms/kubernetes/store/resources.ts";
import {
  outdatedShards,
  outdatedTenants,
  secretsFinding,
} from "../../../../src/platforms/kubernetes/store/derived-status.ts";
import { adminAccessFindings } from "../../../../src/platforms/kubernetes/store/admin-access.ts";

const CLUSTER = { clusterId: "synapse-shards", namespace: "shards" };
const METADATA = { name: "a", resourceVersion: "12", generation: 3, creationTimestamp: "2026-01-02T03:04:05Z" };
const SPEC = { clusterId: CLUSTER.clusterId, serverName: "a.example" };
/** As the API server sends it: times are texts, whatever the library's types say. */
const custom = (spec: Partial<SynapseTenant["spec"]> = {}, status?: SynapseTenant["status"]): SynapseTenant => ({
  metadata: METADATA as unknown as SynapseTenant["metadata"],
  spec: { ...SPEC, ...spec },
  ...(status ? { status } : {}),
});
const tenant = (change: Partial<Tenant["status"]> = {}, spec: Partial<Tenant["spec"]> = {}): Tenant => {
  const mapped = tenantOf(custom(), undefined);
  return { ...mapped, spec: { ...mapped.spec, ...spec }, status: { ...mapped.status, ...change } };
};

describe("custom resources and the model", () => {
  it("what is absent is as in a new one", () => {
    expect(tenantOf(custom(), undefined)).toEqual({
      kind: "Tenant",
      metadata: { ...METADATA, creationTimestamp: "2026-01-02T03:04:05.000Z" },
      spec: { serverName: "a.example", release: "", config: "", reclaimPolicy: "Retain" },
      status: {
        phase: "Pending",
        reason: "",
        message: "",
        epoch: 0,
        observedGeneration: 0,
        provisioned: false,
        failures: 0,
      },
    });
  });

  it("what was read is what is written", () => {
    const spec: Tenant["spec"] = {
      serverName: "a.example",
      release: "v1.163.2-custom.1",
      config: "x: 1\n",
      reclaimPolicy: "Delete",
      revision: 7,
      dedicated: { address: "a.example:8008", metricsPort: 9001 },
      adminAccess: { allowedNetworks: ["10.0.0.0/8", "fd00::1"] },
    };
    const object = newObject("Tenant", "a", spec, CLUSTER);
    expect(object.metadata).toMatchObject({
      name: "a",
      namespace: "shards",
      finalizers: ["synapse-shards.io/controller"],
    });
    expect(tenantOf(object, undefined).spec).toEqual(spec);
    const shard: Shard["spec"] = { release: "1.163.2", drain: "Requested" };
    expect(shardOf(newObject("Shard", "1.163.2-0", shard, CLUSTER))).toMatchObject({
      metadata: { name: "1.163.2-0" },
      spec: shard,
    });
    const fleet: Fleet["spec"] = {
      release: "1.163.2",
      rollout: {
        canaries: { count: 2, names: ["a"] },
        waveSize: 5,
        maxConcurrentMoves: 1,
        soakSeconds: 0,
        progressDeadlineSeconds: 300,
        windows: [{ schedule: "0 2 * * *", durationMinutes: 60, timezone: "Europe/Berlin" }],
        maxFailures: 3,
        onFailure: "RollBack",
        paused: true,
      },
    };
    const fleetObject = newObject("Fleet", "fleet", fleet, CLUSTER);
    expect(fleetObject.metadata?.name).toBe("synapse-shards");
    expect(fleetOf(fleetObject)).toMatchObject({ metadata: { name: "fleet" }, spec: fleet });
  });

  it("a value that was taken out is gone", () => {
    const object = withSpec(custom({ image: { tag: "1.0.0" }, dedicated: { address: "a:1" } }), tenant());
    expect(JSON.parse(JSON.stringify(object.spec))).toEqual({ ...SPEC, config: "", reclaimPolicy: "Retain" });
    const drained: SynapseShard = {
      metadata: METADATA as unknown as SynapseShard["metadata"],
      spec: { clusterId: "c", name: "1.0.0-0", image: { tag: "1.0.0" }, drain: "Consolidation" },
    };
    const { drain: _, ...spec } = shardOf(drained).spec;
    expect(withSpec<"Shard">(drained, { ...shardOf(drained), spec }).spec.drain).toBeUndefined();
  });

  it("a Secret's homeserver.yaml is never written to the spec", () => {
    const object = custom({ secretName: "mine" });
    const read = tenantOf(object, "database: {args: {password: hush}}");
    expect(read.spec.config).toContain("hush");
    read.spec.release = "1.163.2";
    const written = withSpec(object, read, read.spec.config);
    expect(written.spec).toMatchObject({ secretName: "mine", image: { tag: "1.163.2" } });
    expect(JSON.stringify(written)).not.toContain("hush");
  });

  it("objects have valid names of their own", () => {
    expect(objectName("Shard", "1.163.2-RC1_x-0", "c")).toBe("c-1.163.2-rc1-x-0");
    expect(objectName("Tenant", "a", "c")).toBe("a");
    expect(objectName("Fleet", "fleet", "c")).toBe("c");
    expect(secretNameOf(custom())).toBe("a-synapse-tenant");
    expect(secretNameOf(custom({ secretName: "mine" }))).toBe("mine");
  });

  it("what is shown to people stays out of the model, and is kept", () => {
    const object = withStatus<"Tenant">(
      custom({}, { epoch: 2 ** 33 + 1 }),
      tenant({ fleetRelease: "1.163.2", epoch: 2 ** 33 + 1 }),
      "now",
    );
    expect(object.status).toMatchObject({ imageTag: "1.163.2", epoch: 8589934593 });
    expect(tenantOf(object, undefined).status).not.toHaveProperty("imageTag");
    expect(tenantOf(object, undefined).status).not.toHaveProperty("conditions");
    const shard: SynapseShard = {
      metadata: METADATA as unknown as SynapseShard["metadata"],
      spec: { clusterId: "c", name: "1.0.0-0", image: { tag: "1.0.0" } },
      status: { tenants: 4 },
    };
    expect(shardOf(shard).status).not.toHaveProperty("tenants");
    expect(withStatus(shard, shardOf(shard), "now").status?.tenants).toBe(4);
  });

  it("labels are the object's own", () => {
    const object = custom();
    const labelled = { ...object, metadata: { ...object.metadata, labels: { plan: "small" } } };
    const read = tenantOf(labelled, undefined);
    expect(read.spec.labels).toEqual({ plan: "small" });
    const changed = withSpec<"Tenant">(labelled, { ...read, spec: { ...read.spec, labels: { plan: "large" } } });
    expect(changed.metadata?.labels).toEqual({ plan: "large" });
    expect(changed.spec).not.toHaveProperty("labels");
    expect(changed.metadata?.name).toBe(object.metadata?.name);
  });

  it("one reader's changes do not reach another", () => {
    const object = custom({}, { lastMove: { id: "m" } as Tenant["status"]["lastMove"] & {} });
    tenantOf(object, undefined).status.lastMove!.id = "changed";
    expect(object.status?.lastMove?.id).toBe("m");
    const fleet: SynapseFleet = { metadata: {}, spec: { clusterId: "c", imageTag: "1.0.0", rollout: { windows: [] } } };
    fleetOf(fleet).spec.rollout.windows.push({ schedule: "", durationMinutes: 1, timezone: "UTC" });
    expect(fleet.spec.rollout?.windows).toEqual([]);
  });
});

describe("conditions", () => {
  const of = (resource: Tenant) =>
    Object.fromEntries(
      conditionsOf(resource, [], "t").map(({ type, status, reason }) => [type, `${status} ${reason}`]),
    );

  it("Ready is true of tenants that serve, and of no other", () => {
    expect(of(tenant({ reason: "MaxShardsReached" }))).toMatchObject({
      Ready: "False MaxShardsReached",
      Placed: "False MaxShardsReached",
    });
    expect(of(tenant({ dedicated: { address: "a:1" } }))).toMatchObject({ Placed: "True Dedicated" });
    const running = { phase: "Running", shard: "1.0.0-0", address: "x:1", observedGeneration: 3 } as const;
    expect(of(tenant(running))).toEqual({
      Ready: "True Running",
      Placed: "True OnShard",
      UpToDate: "True AsSpecified",
    });
    expect(of(tenant({ ...running, phase: "Moving" })).Ready).toBe("True Moving");
    expect(of(tenant({ ...running, phase: "Failed", reason: "StartFailed" })).Ready).toBe("False StartFailed");
    // That is what was asked for; it does not serve.
    expect(of(tenant({ phase: "Suspended", observedGeneration: 3 }, { suspended: true }))).toEqual({
      Ready: "False Suspended",
      Placed: "True Suspended",
      UpToDate: "True AsSpecified",
    });
  });

  it("does not tell `kubectl wait` that an upgrade is done that was refused, or has not begun", () => {
    const status = {
      observedGeneration: 2,
      refusedRelease: { release: "1.0.0", reason: "SchemaTooNew", message: "m" },
    };
    expect(of(tenant({ observedGeneration: 2 })).UpToDate).toBe("False Pending");
    expect(of(tenant(status, { release: "1.0.0" })).UpToDate).toBe("False SchemaTooNew");
    const placed = {
      phase: "Running" as const,
      observedGeneration: 3,
      shard: "1.0.0-rc1-0",
      fleetRelease: "1.0.0-rc1",
    };
    expect(of(tenant(placed)).UpToDate).toBe("True AsSpecified");
    expect(of(tenant({ ...placed, fleetRelease: "1.0.0" })).UpToDate).toBe("False UpgradePending");
    expect(
      of(tenant({ ...placed, refusedConfig: { hash: "x", reason: "InvalidConfig", message: "no" } })).UpToDate,
    ).toBe("False ConfigRefused");
  });

  it("the time of transition changes with the status only", () => {
    const first = conditionsOf(tenant(), [], "t1");
    const second = conditionsOf(tenant({ message: "still" }), first, "t2");
    expect(second.map(({ lastTransitionTime }) => lastTransitionTime)).toEqual(["t1", "t1", "t1"]);
    const third = conditionsOf(tenant({ phase: "Running" }), second, "t3");
    expect(third.find(({ type }) => type === "Ready")?.lastTransitionTime).toBe("t3");
  });
});

it("writes the number of a shard's tenants only when it changed", () => {
  const shard = (name: string, count?: number): SynapseShard => ({
    spec: { clusterId: "c", name, image: { tag: "1.0.0" } },
    ...(count === undefined ? {} : { status: { tenants: count } }),
  });
  const outdated = outdatedShards(
    new Map([
      ["x", 2],
      ["y", 1],
    ]),
    [shard("x", 1), shard("y", 1), shard("z", 3), shard("n")],
  );
  expect(outdated.map(({ spec, status }) => [spec.name, status?.tenants])).toEqual([
    ["x", 2],
    ["z", 0],
    ["n", 0],
  ]);
});

describe("a tenant's own administrators", () => {
  const written = (adminAccess: unknown) => custom({ adminAccess } as SynapseTenant["spec"]);

  it.each([
    [{ allowedNetworks: ["10.0.0.0/8", "10.0.0.0/40"] }, "spec.adminAccess.allowedNetworks.1: "],
    [{ allowedNetworks: ["1:2"] }, "spec.adminAccess.allowedNetworks.0: "],
    [{ allowedNetworks: "10.0.0.0/8" }, "spec.adminAccess.allowedNetworks: "],
  ])("do not come in by a list that is wrong, and it says what: %j", (adminAccess, words) => {
    expect(tenantOf(written(adminAccess), undefined).spec.adminAccess).toBeUndefined();
    expect(adminAccessFindings(written(adminAccess), true)).toMatchObject([
      { type: "AdminAccess", status: "False", reason: "InvalidNetworks", message: expect.stringContaining(words) },
    ]);
  });

  it("have a list that is wrong kept as it is written, with what is said of it, until it is another", () => {
    const object = written({ allowedNetworks: ["1:2"] });
    const read = tenantOf(object, undefined);
    const after = withSpec<"Tenant">(object, { ...read, spec: { ...read.spec, revision: 8 } });
    expect(after.spec).toMatchObject({ revision: 8, adminAccess: { allowedNetworks: ["1:2"] } });
    expect(adminAccessFindings(after, true)).toMatchObject([{ reason: "InvalidNetworks" }]);
    const opened = { ...read, spec: { ...read.spec, adminAccess: { allowedNetworks: [] } } };
    expect(withSpec<"Tenant">(object, opened).spec.adminAccess).toEqual({ allowedNetworks: [] });
    expect(withSpec<"Tenant">(written({ allowedNetworks: [] }), read).spec.adminAccess).toBeUndefined();
  });

  it("come in from anywhere where no list is written, if there is an entrance", () => {
    expect(tenantOf(written({}), undefined).spec.adminAccess).toEqual({ allowedNetworks: [] });
    expect(adminAccessFindings(written({}), true)).toMatchObject([{ status: "True", reason: "Open" }]);
    expect(adminAccessFindings(written({}), false)).toMatchObject([{ status: "False", reason: "NoEntrance" }]);
    expect(adminAccessFindings(custom(), true)).toEqual([]);
  });

  it("have a condition while somebody wants them in, which goes when nobody does", () => {
    const now = "2026-01-02T03:04:06Z";
    const secrets = secretsFinding(undefined);
    const of = (object: SynapseTenant) => [secrets, ...adminAccessFindings(object, true)];
    const conditions = [{ ...secrets, lastTransitionTime: now }];
    const [opened] = outdatedTenants([{ ...written({}), status: { conditions } }], of, now);
    expect(opened!.status!.conditions!.map(({ type, status }) => [type, status])).toEqual([
      ["SecretsReadable", "True"],
      ["AdminAccess", "True"],
    ]);
    expect(outdatedTenants([opened!], of, "later")).toEqual([]);
    const [closed] = outdatedTenants([{ ...opened!, spec: SPEC }], of, "later");
    expect(closed!.status!.conditions!.map(({ type }) => type)).toEqual(["SecretsReadable"]);
  });
});
