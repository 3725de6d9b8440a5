import { expect, test } from "vitest";
import type { SynapseTenant } from "../../../../src/platforms/kubernetes/store/resources.ts";
import {
  claimActions,
  openedBy,
  type ClaimAction,
} from "../../../../src/platforms/kubernetes/tenant-namespaces/claims.ts";

const SHARDS = "shards";
const SPEC = { clusterId: "ours", serverName: "a.example" };

function tenantAt(place: string, spec: object = {}, more: Partial<SynapseTenant> = {}): SynapseTenant {
  const [namespace = "", name = ""] = place.split("/");
  const { metadata, ...rest } = more;
  return {
    apiVersion: "synapse-shards.io/v1alpha1",
    kind: "SynapseTenant",
    metadata: { namespace, name, uid: `uid-of-${place}`, generation: 1, ...metadata },
    spec: { ...SPEC, ...spec },
    ...rest,
  };
}

const decide = (tenants: SynapseTenant[], allowed = ["clinic"], ownersOpen = false): ClaimAction[] =>
  claimActions({
    clusterId: "ours",
    namespace: SHARDS,
    tenants,
    isAllowed: (of) => allowed.includes(of),
    ownersOpen,
    now: "now",
  });

/** The tenant that is made for a claim, as the API server has it. */
function hostedFor(claim: SynapseTenant, more: Partial<SynapseTenant> = {}): SynapseTenant {
  const [action] = decide([claim]);
  if (action?.do !== "create") throw new Error(`not created, but ${JSON.stringify(action)}`);
  const { metadata, ...rest } = more;
  const made = { uid: "hosted", generation: 1, ...metadata };
  return { ...action.tenant, ...rest, metadata: { ...action.tenant.metadata, ...made } };
}

test("makes a tenant beside the shards for one of a namespace that may have some", () => {
  const [action, ...more] = decide([tenantAt("clinic/chat", { secretName: "chat-secret", image: { tag: "1.163.2" } })]);
  expect(more).toEqual([]);
  expect(action).toMatchObject({
    do: "create",
    tenant: {
      metadata: { namespace: SHARDS, name: "clinic-chat" },
      spec: { ...SPEC, image: { tag: "1.163.2" }, secretName: "chat-secret", secretNamespace: "clinic" },
    },
  });
});

test("reads Secrets of the claim's own namespace alone, whatever it says", () => {
  const claim = tenantAt("clinic/chat", { secretName: "theirs", secretNamespace: "kube-system" });
  expect(hostedFor(claim).spec.secretNamespace).toBe("clinic");
  expect(hostedFor(tenantAt("clinic/chat", { secretNamespace: "kube-system" })).spec.secretNamespace).toBeUndefined();
});

const OPERATORS = {
  metrics: ["all"],
  plan: "large",
  quotas: { cpuShare: 0 },
  placement: { isolate: true },
};

// Guards against: an owner who lifts the tenant's quotas, or has it fill its neighbours' shard, by a field of the object.
test("leaves out what a tenant takes of the cluster, and tells the owner so, once", () => {
  const claim = tenantAt("clinic/chat", {
    ...OPERATORS,
    authenticationService: "http://10.0.0.1/",
    hibernation: { mode: "Never" },
  });
  const hosted = hostedFor(claim);
  expect(hosted.spec).toEqual({ ...SPEC, hibernation: { mode: "Never" } });
  const told = toldOf(claim, hosted);
  expect(told.status?.conditions).toMatchObject([{ type: "Accepted", status: "False", reason: "OperatorsChoice" }]);
  for (const field of Object.keys(OPERATORS)) expect(told.status?.conditions?.[0]?.message).toContain(`spec.${field}`);
  const [quiet] = decide([{ ...told, spec: { ...SPEC, hibernation: { mode: "Never" } } }, hosted]);
  expect(quiet?.do === "setStatus" && quiet.claim.status?.conditions).toBeFalsy();
});

test("leaves as they are what the operator set beside the shards, whatever the owner changes", () => {
  const hosted = hostedFor(tenantAt("clinic/chat"));
  const given = { ...hosted, spec: { ...hosted.spec, ...OPERATORS } };
  expect(updated(tenantAt("clinic/chat"), given)).toBe(given);
  const changed = tenantAt("clinic/chat", { config: "x: 1", plan: "small" });
  const after = updated(changed, given);
  expect(after.spec).toEqual({ ...SPEC, ...OPERATORS, config: "x: 1" });
  expect(toldOf(changed, after).status?.conditions?.[0]?.message).toBe(
    "not taken up: spec.plan, which the operator says",
  );
});

test("leaves tenants of other clusters, and those in the shards' namespace, alone", () => {
  expect(decide([tenantAt("clinic/chat", { clusterId: "theirs" }), tenantAt("shards/own")])).toEqual([]);
});

test.each([
  ["a namespace that may have none", "elsewhere/chat", [], "NamespaceNotAllowed", "shards-namespace=shards"],
  ["a name that is too long", `clinic/${"x".repeat(60)}`, [], "NameTooLong", "longer than 63"],
  ["a name that another has", "clinic/chat", [tenantAt("shards/clinic-chat")], "NameTaken", "clinic-chat"],
])("refuses %s, and says so once", (_what, place, others, reason, words) => {
  const [action, ...more] = decide([tenantAt(place), ...others]);
  expect(more).toEqual([]);
  const message = expect.stringContaining(words) as string;
  expect(action).toMatchObject({ do: "setStatus", claim: { status: { phase: "Pending", reason, message } } });
  const told = (action as { claim: SynapseTenant }).claim;
  expect(decide([told, ...others])).toEqual([]);
});

test("one of a namespace whose leave was taken away runs on", () => {
  const claim = tenantAt("clinic/chat");
  expect(decide([claim, hostedFor(claim)], [])).toMatchObject([
    { do: "setStatus", claim: { status: { reason: "NamespaceNotAllowed" } } },
  ]);
});

test("takes up a changed spec, and not a change that somebody else made beside the shards", () => {
  const claim = tenantAt("clinic/chat");
  const hosted = hostedFor(claim);
  const changed = tenantAt("clinic/chat", { config: "max_upload_size: 1M" }, { metadata: { generation: 2 } });
  const update = { do: "update", tenant: { metadata: { uid: "hosted" } } };
  expect(decide([changed, hosted])).toMatchObject([{ ...update, tenant: { spec: { config: "max_upload_size: 1M" } } }]);
  const meddled = { ...hosted, spec: { ...hosted.spec, config: "x: 1" } };
  const [action] = decide([claim, meddled]);
  expect(action).toMatchObject(update);
  expect((action as { tenant: SynapseTenant }).tenant.spec.config).toBeUndefined();
});

test("tells its owner the status, in generations of the owner's object", () => {
  const claim = tenantAt("clinic/chat", {}, { metadata: { generation: 7 } });
  const condition = { type: "Ready", status: "True", reason: "R", message: "", lastTransitionTime: "t" } as const;
  const status = {
    phase: "Running",
    observedGeneration: 3,
    conditions: [{ ...condition, observedGeneration: 3 }],
  } as const;
  const hosted = hostedFor(claim, {
    status: { ...status, conditions: [...status.conditions] },
    metadata: { generation: 3 },
  });
  const [action, ...more] = decide([claim, hosted]);
  expect(more).toEqual([]);
  expect(action).toMatchObject({
    do: "setStatus",
    claim: {
      status: { phase: "Running", observedGeneration: 7, conditions: [{ type: "Ready", observedGeneration: 7 }] },
    },
  });
  expect(decide([(action as { claim: SynapseTenant }).claim, hosted])).toEqual([]);
});

test("deletes the tenant of a claim that is gone, is being deleted, or is another one of the same name", () => {
  const claim = tenantAt("clinic/chat");
  const hosted = hostedFor(claim);
  const gone = {
    do: "delete",
    tenant: hosted,
    claim: { namespace: "clinic", name: "chat", uid: "uid-of-clinic/chat" },
  };
  expect(decide([hosted])).toEqual([gone]);
  const ending = tenantAt("clinic/chat", {}, { metadata: { deletionTimestamp: new Date(0) } });
  expect(decide([ending, hosted])).toEqual([gone]);
  const again = tenantAt("clinic/chat", {}, { metadata: { uid: "another" } });
  expect(decide([again, hosted])).toEqual([gone]);
  // It has been told, and is on its way: nothing more, until it is gone.
  const leaving = { ...hosted, metadata: { ...hosted.metadata, deletionTimestamp: new Date(0) } };
  expect(decide([again, leaving])).toEqual([]);
});

const OPEN = { adminAccess: { allowedNetworks: ["10.0.0.0/8"] } };

test("opens a tenant to its administrators by its owner's word only where owners may say so", () => {
  const claim = tenantAt("clinic/chat", OPEN);
  const [created] = decide([claim], ["clinic"], true);
  expect(created).toMatchObject({ do: "create", tenant: { spec: OPEN } });
  const hosted = hostedFor(claim);
  expect(hosted.spec.adminAccess).toBeUndefined();
  const [told] = decide([claim, hosted]);
  if (told?.do !== "setStatus") throw new Error(JSON.stringify(told));
  const [condition] = told.claim.status!.conditions!;
  expect(condition).toMatchObject({ type: "AdminAccess", status: "False", reason: "OperatorsChoice" });
  expect(decide([told.claim, hosted])).toEqual([]);
});

test("leaves a tenant that the operator opened as it is, whatever its owner changes", () => {
  const claim = tenantAt("clinic/chat", { config: "x: 1" });
  const hosted = hostedFor(tenantAt("clinic/chat"));
  const opened = { ...hosted, spec: { ...hosted.spec, ...OPEN } };
  expect(decide([claim, opened])).toMatchObject([{ do: "update", tenant: { spec: { ...OPEN, config: "x: 1" } } }]);
  // An owner who may open it may close it as well.
  const [closed] = decide([claim, opened], ["clinic"], true);
  expect(closed?.do === "update" && closed.tenant.spec.adminAccess).toBeUndefined();
});

const IS_OPEN = {
  type: "AdminAccess",
  status: "True",
  reason: "Open",
  message: "",
  lastTransitionTime: "t",
} as const;

/** Where the operator says whether it is open: the tenant after one round. */
function updated(claim: SynapseTenant, hosted: SynapseTenant, ownersOpen = false): SynapseTenant {
  const [action] = decide([claim, hosted], ["clinic"], ownersOpen);
  return action?.do === "update" ? action.tenant : hosted;
}
function toldOf(claim: SynapseTenant, hosted: SynapseTenant): SynapseTenant {
  const shown = hosted.spec.adminAccess ? { status: { conditions: [IS_OPEN] } } : {};
  const [action] = decide([claim, { ...hosted, ...shown }]);
  if (action?.do !== "setStatus") throw new Error(JSON.stringify(action));
  expect(decide([action.claim, { ...hosted, ...shown }])).toEqual([]);
  return action.claim;
}

test("closes a tenant whose owner no longer asks for it to be open, also where opening it is the operator's to say", () => {
  const asking = tenantAt("clinic/chat", OPEN);
  const opened = updated(asking, hostedFor(tenantAt("clinic/chat")), true);
  expect(opened.spec).toMatchObject(OPEN);
  // Owners may say so no longer: it stays as it is…
  expect(updated(asking, opened)).toBe(opened);
  // …until this one wants it closed, which is not taken back.
  const closed = updated(tenantAt("clinic/chat"), opened);
  expect(closed.spec.adminAccess).toBeUndefined();
  const reopened = { ...closed, spec: { ...closed.spec, ...OPEN } };
  expect(updated(tenantAt("clinic/chat"), reopened)).toBe(reopened);
  const askedAgain = updated(asking, reopened);
  expect(updated(tenantAt("clinic/chat"), askedAgain).spec.adminAccess).toBeUndefined();
});

test("tells an owner whose tenant is open otherwise than asked where it is open, once, and how to close it", () => {
  const opened = updated(tenantAt("clinic/chat", OPEN), hostedFor(tenantAt("clinic/chat")), true);
  const narrower = tenantAt("clinic/chat", { adminAccess: { allowedNetworks: ["10.1.0.0/16"] } });
  const conditions = toldOf(narrower, opened).status!.conditions!;
  expect(conditions).toHaveLength(1);
  expect(conditions[0]).toMatchObject({ type: "AdminAccess", status: "True", reason: "OperatorsChoice" });
  expect(conditions[0]!.message).toMatch(/from 10\.0\.0\.0\/8; .* take spec\.adminAccess out$/);
  const hosted = hostedFor(tenantAt("clinic/chat"));
  const byOperator = { ...hosted, spec: { ...hosted.spec, adminAccess: { allowedNetworks: [] } } };
  const [condition] = toldOf(tenantAt("clinic/chat"), byOperator).status!.conditions!;
  expect(condition!.message).toMatch(/from any network; .* write spec\.adminAccess and take it out$/);
  const same = updated(tenantAt("clinic/chat", { adminAccess: {} }), byOperator);
  expect(toldOf(tenantAt("clinic/chat", { adminAccess: {} }), same).status!.conditions![0]!.reason).toBe("Open");
});

test("leaves it to the owner whether a tenant is open, unless its namespace may have no tenants any more", () => {
  const hosted = hostedFor(tenantAt("clinic/chat"));
  const isAllowed = (of: string) => of === "clinic";
  expect(openedBy(hosted, { ownersOpen: true, isAllowed })).toBe("clinic/chat");
  expect(openedBy(hosted, { ownersOpen: false, isAllowed })).toBeUndefined();
  expect(openedBy(hosted, { ownersOpen: true, isAllowed: () => false })).toBeUndefined();
  expect(openedBy(tenantAt("shards/own"), { ownersOpen: true, isAllowed })).toBeUndefined();
});

test("says nothing of who may come in while a namespace's tenants are the operator's alone, who may close them", () => {
  const claim = tenantAt("clinic/chat", OPEN, { status: { conditions: [IS_OPEN] } });
  const hosted = hostedFor(claim);
  const [action, ...more] = decide([claim, hosted], [], true);
  expect(more).toEqual([]);
  expect(action?.do === "setStatus" && action.claim.status?.conditions).toEqual([]);
});
