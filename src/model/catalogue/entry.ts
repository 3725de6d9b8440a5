/** Where codes are met, in the order in which the reference lists them. */
export const PLACES = {
  api: "error of the API and of the command line",
  tenant: "reason of a tenant: in its status, its conditions, and events about it",
  shard: "reason of a shard; an event about it has `Shard` before it, such as `ShardNotStarted`",
  fleet: "reason of the fleet's rollout",
  event: "reason of an event",
  move: "why a tenant moves",
  sleep: "why a tenant falls asleep",
  wake: "why a tenant is woken",
  keep: "why a shard keeps its tenants",
  purge: "why the data of a deleted tenant is removed",
  condition: "reason of a condition on Kubernetes",
  certificate: "why there is no new certificate for a name",
  control: "answer of a shard or a preparer to the controller",
  gateway: "answer of the gateway, in its header `X-Synapse-Shards-Error`",
  phase: "phase, step or outcome in a status",
} as const;
export type Place = keyof typeof PLACES;

export interface CodeEntry {
  code: string;
  met: readonly Place[];
  /** One or two sentences. */
  means: string;
  /** What its reader does about it; absent where nothing is to be done. */
  todo?: string;
  /** The name of a page in `docs/runbooks`. */
  runbook?: string;
}

/** An entry as it is written down: under its code, in a file for its main place. */
export type Explained = Omit<CodeEntry, "code" | "met"> & {
  /** The other places where it means the same. */
  also?: readonly Place[];
};

export function entriesOf(place: Place, table: Readonly<Record<string, Explained>>): CodeEntry[] {
  return Object.entries(table).map(([code, { also = [], ...entry }]) => ({ code, met: [place, ...also], ...entry }));
}
