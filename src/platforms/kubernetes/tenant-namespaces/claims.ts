/** SynapseTenants in customers' namespaces, and the ones in the shards' namespace that are made for them. Pure. */
import { isDeepStrictEqual } from "node:util";
import { defined } from "../../../model/defined.ts";
import { adminAccessOf } from "../store/admin-access.ts";
import { conditionOf, type Finding } from "../store/conditions.ts";
import type { SynapseTenant } from "../store/resources.ts";
import { notTakenUp, specOf } from "./owners-spec.ts";

/** On a customer's namespace, set by an administrator: the shards' namespace whose clusters may host its tenants. */
export const ALLOWED_LABEL = "synapse-shards.io/shards-namespace";
/** On a tenant in the shards' namespace: NAMESPACE/NAME of the SynapseTenant that it is made for, and its uid. */
export const CLAIM = "synapse-shards.io/claim";
const CLAIM_UID = "synapse-shards.io/claim-uid";
/** Which generation of the claim its spec is of. */
const CLAIM_GENERATION = "synapse-shards.io/claim-generation";
/** Whether the claim asks for administrators to come in: an owner who takes that back closes the tenant, whoever opened it. */
const CLAIM_ASKS = "synapse-shards.io/claim-admin-access";
const ADMIN_ACCESS = "AdminAccess";
/** On a claim of which something is not taken up. */
const ACCEPTED = "Accepted";
const OPERATORS_CHOICE = "OperatorsChoice";
/** A tenant's name is a label in DNS. */
const LONGEST_NAME = 63;

export interface Claims {
  clusterId: string;
  /** The shards' namespace. */
  namespace: string;
  /** Of all namespaces. */
  tenants: readonly SynapseTenant[];
  /** Whether a namespace may have tenants. */
  isAllowed: (namespace: string) => boolean;
  /** Whether owners may open their tenants to administrators; else that is the operator's to say. */
  ownersOpen: boolean;
  now: string;
}

/** What is to be done for claims and their tenants to agree. */
export type ClaimAction =
  | { do: "create"; tenant: SynapseTenant }
  | { do: "update"; tenant: SynapseTenant }
  | { do: "setStatus"; claim: SynapseTenant }
  /** @param claim where it was, to make sure that it is gone */
  | { do: "delete"; tenant: SynapseTenant; claim: { namespace: string; name: string; uid: string } };

/** The name in the shards' namespace. */
export function hostedNameOf({ metadata }: SynapseTenant): string {
  return `${metadata?.namespace}-${metadata?.name}`;
}

/**
 * The claim, NAMESPACE/NAME, that says whether a tenant in the shards' namespace is open to its administrators: what another writes there is
 * written over. Undefined where the operator says so.
 */
export function openedBy(
  { metadata }: SynapseTenant,
  { ownersOpen, isAllowed }: Pick<Claims, "ownersOpen" | "isAllowed">,
): string | undefined {
  const place = metadata?.annotations?.[CLAIM];
  return place !== undefined && ownersOpen && isAllowed(place.split("/")[0] ?? "") ? place : undefined;
}

export function claimActions(given: Claims): ClaimAction[] {
  const { clusterId, namespace, tenants } = given;
  const hosted = new Map<string, SynapseTenant>();
  const claims = new Map<string, SynapseTenant>();
  for (const tenant of tenants) {
    if (tenant.spec.clusterId !== clusterId) continue;
    if (tenant.metadata?.namespace === namespace) hosted.set(tenant.metadata.name ?? "", tenant);
    else if (tenant.metadata?.deletionTimestamp === undefined) claims.set(placeOf(tenant), tenant);
  }
  const actions: ClaimAction[] = [];
  for (const claim of claims.values()) {
    const action = actionFor(claim, hosted.get(hostedNameOf(claim)), given);
    if (action) actions.push(action);
  }
  for (const tenant of hosted.values()) {
    const { [CLAIM]: place, [CLAIM_UID]: uid = "" } = tenant.metadata?.annotations ?? {};
    if (place === undefined || tenant.metadata?.deletionTimestamp !== undefined) continue;
    if (claims.get(place)?.metadata?.uid === uid) continue;
    const [of = "", name = ""] = place.split("/");
    actions.push({ do: "delete", tenant, claim: { namespace: of, name, uid } });
  }
  return actions;
}

function actionFor(
  claim: SynapseTenant,
  tenant: SynapseTenant | undefined,
  { namespace, isAllowed, ownersOpen, now }: Claims,
): ClaimAction | undefined {
  const own = claim.metadata?.namespace ?? "";
  const name = hostedNameOf(claim);
  const isOurs = tenant?.metadata?.annotations?.[CLAIM] === placeOf(claim);
  if (!isAllowed(own)) {
    // What runs goes on: an administrator who takes the leave away stops nobody by it.
    const label = `${ALLOWED_LABEL}=${namespace}`;
    const words = `the namespace ${own} may have no tenants of this cluster; an administrator lets it by the label ${label}`;
    return refusal(claim, "NamespaceNotAllowed", words);
  }
  if (name.length > LONGEST_NAME)
    return refusal(
      claim,
      "NameTooLong",
      `${name}, the tenant's name in the cluster, is longer than ${LONGEST_NAME} characters; give it a shorter one`,
    );
  if (tenant && !isOurs)
    return refusal(claim, "NameTaken", `${name}, the tenant's name in the cluster, is another one's; give it another`);
  if (!tenant) return { do: "create", tenant: hostedOf(claim, { namespace, ownersOpen }) };
  // Of one that was there before under this name: it goes first.
  if (tenant.metadata?.annotations?.[CLAIM_UID] !== claim.metadata?.uid) return undefined;
  const wanted = hostedOf(claim, { namespace, ownersOpen }, tenant);
  const asks = (of: SynapseTenant) => of.metadata?.annotations?.[CLAIM_ASKS] ?? "false";
  if (!isDeepStrictEqual(plain(wanted.spec), plain(tenant.spec)) || asks(wanted) !== asks(tenant))
    return {
      do: "update",
      tenant: {
        ...tenant,
        metadata: {
          ...tenant.metadata,
          annotations: { ...tenant.metadata?.annotations, ...wanted.metadata?.annotations },
        },
        spec: wanted.spec,
      },
    };
  const status = statusOf(claim, tenant);
  const findings = [ownersOpen ? undefined : accessFinding(claim, tenant), acceptedFinding(claim, tenant)];
  const told = findings.reduce((so, finding) => (finding ? withFinding(claim, so, finding, now) : so), status);
  return statusAction(claim, told);
}

/**
 * The same tenant in the shards' namespace, with what is the operator's to say as it is there (`owners-spec.ts`). Its Secrets are those of the claim's namespace, whatever that says. Whether it is open to its
 * administrators is as the claim says where owners may say so; else as it is, until its owner no longer asks for it.
 */
function hostedOf(
  claim: SynapseTenant,
  { namespace, ownersOpen }: Pick<Claims, "namespace" | "ownersOpen">,
  present?: SynapseTenant,
): SynapseTenant {
  const own = claim.metadata?.namespace ?? "";
  const { adminAccess: asked } = claim.spec;
  const spec = specOf(claim.spec, present?.spec);
  const isTakenBack = asked === undefined && present?.metadata?.annotations?.[CLAIM_ASKS] === "true";
  const left = isTakenBack ? undefined : present?.spec.adminAccess;
  const adminAccess = ownersOpen ? asked : left;
  return {
    apiVersion: claim.apiVersion ?? "",
    kind: claim.kind ?? "",
    metadata: {
      name: hostedNameOf(claim),
      namespace,
      annotations: {
        [CLAIM]: placeOf(claim),
        [CLAIM_UID]: claim.metadata?.uid ?? "",
        [CLAIM_GENERATION]: String(claim.metadata?.generation ?? 0),
        [CLAIM_ASKS]: String(asked !== undefined),
      },
    },
    spec: { ...spec, ...defined({ adminAccess }), ...(spec.secretName === undefined ? {} : { secretNamespace: own }) },
  };
}

/** What is told of the tenant, with generations of the claim. */
function statusOf(claim: SynapseTenant, tenant: SynapseTenant): NonNullable<SynapseTenant["status"]> {
  const { generation } = tenant.metadata ?? {};
  const current = Number(tenant.metadata?.annotations?.[CLAIM_GENERATION] ?? claim.metadata?.generation ?? 0);
  const translated = (observed: number | undefined) => (observed === generation ? current : Math.max(0, current - 1));
  const { status = {} } = tenant;
  return {
    ...status,
    ...(status.observedGeneration === undefined ? {} : { observedGeneration: translated(status.observedGeneration) }),
    ...(status.conditions === undefined
      ? {}
      : {
          conditions: status.conditions.map(({ observedGeneration, ...condition }) => ({
            ...condition,
            ...(observedGeneration === undefined ? {} : { observedGeneration: translated(observedGeneration) }),
          })),
        }),
  };
}

/** What an owner is told of what is the operator's to say, and is not as the claim says. */
function acceptedFinding({ spec }: SynapseTenant, tenant: SynapseTenant): Finding | undefined {
  const fields = notTakenUp(spec, tenant.spec);
  if (fields.length === 0) return undefined;
  const message = `not taken up: ${fields.join(", ")}, which the operator says`;
  return { type: ACCEPTED, status: "False", reason: OPERATORS_CHOICE, message };
}

/** What an owner is told where who may come in is not as the claim says. */
function accessFinding(claim: SynapseTenant, tenant: SynapseTenant): Finding | undefined {
  const [asked, holds] = [claim, tenant].map((of) => adminAccessOf(of) ?? of.spec.adminAccess);
  if (isDeepStrictEqual(asked, holds)) return undefined;
  const reason = OPERATORS_CHOICE;
  const whose = "the operator's to say (gateway.adminAccess.tenantAdmins)";
  if (holds === undefined)
    return {
      type: ADMIN_ACCESS,
      status: "False",
      reason,
      message: `whether it is open to its administrators is ${whose}`,
    };
  // What keeps everybody out is said already.
  if (tenant.status?.conditions?.find(({ type }) => type === ADMIN_ACCESS)?.status !== "True") return undefined;
  const from = holds.allowedNetworks?.length ? holds.allowedNetworks.join(", ") : "any network";
  const end =
    asked === undefined
      ? "to close it, write spec.adminAccess and take it out"
      : "to close it, take spec.adminAccess out";
  return {
    type: ADMIN_ACCESS,
    status: "True",
    reason,
    message: `it is open to its administrators from ${from}; where they may come from is ${whose}; ${end}`,
  };
}

function withFinding(
  claim: SynapseTenant,
  status: NonNullable<SynapseTenant["status"]>,
  finding: Finding,
  now: string,
): NonNullable<SynapseTenant["status"]> {
  const before = claim.status?.conditions?.find(({ type }) => type === finding.type);
  const condition = conditionOf(finding, before, now, claim.metadata?.generation);
  const others = (status.conditions ?? []).filter(({ type }) => type !== finding.type);
  return { ...status, conditions: [...others, condition] };
}

function refusal(claim: SynapseTenant, reason: string, message: string): ClaimAction | undefined {
  // What it was, if it ran: only the reason changes.
  const phase = claim.status?.phase ?? "Pending";
  // The operator may change it meanwhile, of which nothing is told here.
  const conditions = claim.status?.conditions?.filter(({ type }) => type !== ADMIN_ACCESS && type !== ACCEPTED);
  return statusAction(claim, { ...claim.status, phase, reason, message, ...defined({ conditions }) });
}

function statusAction(claim: SynapseTenant, status: NonNullable<SynapseTenant["status"]>): ClaimAction | undefined {
  if (isDeepStrictEqual(plain(claim.status ?? {}), plain(status))) return undefined;
  return { do: "setStatus", claim: { ...claim, status } };
}

function placeOf({ metadata }: SynapseTenant): string {
  return `${metadata?.namespace}/${metadata?.name}`;
}

/** As the API server has it: without what is undefined. */
function plain(value: object): unknown {
  return JSON.parse(JSON.stringify(value));
}
