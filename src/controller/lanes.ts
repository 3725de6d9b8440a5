import { isSuspended, wantedRelease, type Tenant } from "../model/tenant.ts";
import type { Shard } from "../model/shard.ts";
import type { Lane } from "./work-queue.ts";

/** What is quick: a look at something that is as it should be. */
const LOOKS: Lane = { name: "looks", slots: 64 };
/** They are bounded by the planner; but for restarts with a changed configuration, of which there may be as many as tenants. */
const MOVES: Lane = { name: "moves", slots: 256 };
const DELETIONS: Lane = { name: "deletions", slots: 32 };
/** Each takes the time of a drain, and the shard's of a stop. */
const FALLING_ASLEEP: Lane = { name: "falling asleep", slots: 64 };
/** Nobody waits for them; those that are brought to another release wait for few preparers. */
const ASLEEP: Lane = { name: "asleep", slots: 16 };
/** All of one release wait for the same template. */
const PROVISIONS_OF_RELEASE = 16;
/** A shard does the most of a start on one thread; a database that never answers holds a slot for half a minute. */
const STARTS_ON_SHARD = 8;
/** All of one release wait for the same installation. */
const SHARDS_OF_RELEASE = 16;
const STOPS: Lane = { name: "stops", slots: 64 };

/** The kind of work that a tenant is. */
export function laneOfTenant(tenant: Tenant | undefined): Lane {
  if (!tenant) return LOOKS;
  const { metadata, status } = tenant;
  if (status.move) return MOVES;
  if (metadata.deletionTimestamp !== undefined) return DELETIONS;
  if (status.phase === "FallingAsleep" || (isSuspended(tenant) && status.shard !== undefined)) return FALLING_ASLEEP;
  if (status.phase === "Asleep") return ASLEEP;
  if (status.phase === "Running" || status.shard === undefined) return LOOKS;
  if (!status.provisioned) return { name: `provision ${wantedRelease(tenant)}`, slots: PROVISIONS_OF_RELEASE };
  return { name: `start ${status.shard}`, slots: STARTS_ON_SHARD };
}

/** The kind of work that a shard is. */
export function laneOfShard(shard: Shard | undefined): Lane {
  if (!shard) return LOOKS;
  const { metadata, spec, status } = shard;
  if (metadata.deletionTimestamp !== undefined) return STOPS;
  if (status.phase === "Ready" || status.phase === "Draining") return LOOKS;
  return { name: `${status.phase} ${spec.release}`, slots: SHARDS_OF_RELEASE };
}
