/** Whose each field of a SynapseTenant is to set where its owner has it in a namespace of their own. Pure. */
import { isDeepStrictEqual } from "node:util";
import type { SynapseTenant } from "../store/resources.ts";

type Spec = SynapseTenant["spec"];

/**
 * What a tenant takes of the cluster and of its neighbours is the operator's to say, beside the shards; `claims.ts` decides what is neither. A field
 * that is not here is left out.
 */
const WHOSE: Record<keyof Required<Spec>, "owner" | "operator" | "neither"> = {
  clusterId: "owner",
  serverName: "owner",
  image: "owner",
  secretName: "owner",
  // Secrets are those of the owner's namespace.
  secretNamespace: "neither",
  secretRefs: "owner",
  hosts: "owner",
  config: "owner",
  revision: "owner",
  dedicated: "owner",
  hibernation: "owner",
  suspended: "owner",
  placement: "operator",
  plan: "operator",
  quotas: "operator",
  metrics: "operator",
  adminAccess: "neither",
  reclaimPolicy: "owner",
};

/** What a tenant beside the shards has by its owner's word, and what by the operator's. */
export function specOf(claim: Spec, present: Spec | undefined): Spec {
  const { clusterId, serverName } = claim;
  return { clusterId, serverName, ...fieldsOf(claim, "owner"), ...fieldsOf(present ?? {}, "operator") };
}

/** What an owner wrote that is the operator's to say, and is not so. */
export function notTakenUp(claim: Spec, present: Spec): string[] {
  const asked = Object.entries(fieldsOf(claim, "operator"));
  return asked
    .filter(([field, value]) => !isDeepStrictEqual(value, present[field as keyof Spec]))
    .map(([field]) => `spec.${field}`);
}

function fieldsOf(spec: Partial<Spec>, whose: "owner" | "operator"): Partial<Spec> {
  return Object.fromEntries(Object.entries(spec).filter(([field]) => WHOSE[field as keyof Spec] === whose));
}
