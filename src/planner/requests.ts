import type { Policy } from "../model/policy.ts";
import type { NoPlaceReason } from "./actions.ts";
import { assignTenants } from "./assign.ts";
import { isForOne, readWorld, presentRelease, wantedRelease, type World } from "./world.ts";
import { evacuate, lostShards, shardsToEmpty, takePlaceAway } from "./drain.ts";
import { freePlaces, growthPlaces, nextShardName, noPlace, openDraft, placesOf } from "./place.ts";
import type { SnapshotShard, Snapshot, SnapshotTenant } from "./snapshot.ts";
import { aloneAs, isUsable, mustBeAlone } from "./snapshot-facts.ts";

export interface DrainAdmission {
  fits: boolean;
  /** Tenants that would have to find a place elsewhere. */
  needed: number;
  /** Places elsewhere for them, those of shards that could still be made included. */
  free: number;
  /** `""` when it fits. */
  reason: "" | "NotFound" | "Stopping" | NoPlaceReason;
  message: string;
}

/** Whether a shard's tenants all fit elsewhere, so that its drain may begin: what cannot be finished is not begun. */
export function canDrain(snapshot: Snapshot, policy: Policy, name: string): DrainAdmission {
  const no = (reason: DrainAdmission["reason"], message: string) => ({
    fits: false,
    needed: 0,
    free: 0,
    reason,
    message,
  });
  const shard = snapshot.shards.find((candidate) => candidate.name === name);
  if (!shard) return no("NotFound", `there is no shard ${name}`);
  if (shard.phase === "Stopping") return no("Stopping", `shard ${name} is being stopped already`);
  const drained: SnapshotShard = { ...shard, drain: "Requested" };
  const shards = snapshot.shards.map((candidate) => (candidate === shard ? drained : candidate));
  const world = readWorld({ ...snapshot, shards }, policy);
  const draft = openDraft(world);
  // Tenants that need a place already go first, as in a plan.
  const others = (candidate: SnapshotShard) => candidate !== drained;
  evacuate(draft, lostShards(world).filter(others), "ShardLost");
  assignTenants(draft);
  evacuate(draft, shardsToEmpty(world).filter(others), "Drain");

  const leaving = mustLeave(world, name);
  const releases = new Set(leaving.flatMap((tenant) => [wantedRelease(world, tenant), shard.release]));
  const free = [...releases].reduce(
    (sum, release) => sum + freePlaces(draft, release) + growthPlaces(draft, release),
    0,
  );
  const stuck = leaving.find((tenant) => !takePlaceAway(draft, tenant));
  const needed = leaving.length;
  if (!stuck) return { fits: true, needed, free, reason: "", message: "" };
  const why = noPlace(draft, wantedRelease(world, stuck), mustBeAlone(stuck));
  const message = `the ${needed} tenants of shard ${name} do not fit elsewhere: ${why.message}`;
  return { fits: false, needed, free, reason: why.reason, message };
}

/** Those on the shard, or on their way to it, that are not leaving it anyway. */
function mustLeave(world: World, shard: string): SnapshotTenant[] {
  const staying = world.tenantsOn(shard).filter((tenant) => !tenant.move && !tenant.deleting);
  const coming = world.unsettled.filter((tenant) => tenant.move?.to === shard && !tenant.deleting);
  return [...staying, ...coming].toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

export type RefusalReason =
  | "NotFound"
  | "Deleting"
  | "AlreadyMoving"
  | "NotPlaced"
  | "ShardNotFound"
  | "SameShard"
  | "WrongRelease"
  | "Draining"
  | "NotReady"
  | "ShardFull"
  | "ForAnotherAlone"
  | "Quarantined"
  | "Dedicated"
  | NoPlaceReason;

export type Target = { shard: string } | { create: string } | { refused: RefusalReason; message: string };

/**
 * Where a tenant goes that a user wants moved: to `to` if it can take it, or else to the fullest other shard with a free
 * place (rather one that answers already), or else to a new shard, which the caller then makes.
 */
export function chooseTarget(snapshot: Snapshot, policy: Policy, name: string, to?: string): Target {
  const world = readWorld(snapshot, policy);
  const tenant = snapshot.tenants.find((candidate) => candidate.name === name);
  if (!tenant) return refused("NotFound", `there is no tenant ${name}`);
  if (tenant.deleting) return refused("Deleting", `tenant ${name} is being deleted`);
  if (tenant.move)
    return refused("AlreadyMoving", `tenant ${name} is moving already, from ${tenant.move.from} to ${tenant.move.to}`);
  if (tenant.shard === undefined) return refused("NotPlaced", `tenant ${name} has no shard yet`);
  return to === undefined ? chooseBest(world, tenant) : checkTarget(world, tenant, to);
}

function checkTarget(world: World, tenant: SnapshotTenant, to: string): Target {
  const shard = world.shardByName.get(to);
  const release = wantedRelease(world, tenant);
  if (!shard) return refused("ShardNotFound", `there is no shard ${to}`);
  if (to === tenant.shard) return refused("SameShard", `tenant ${tenant.name} is on shard ${to} already`);
  if (shard.release !== release)
    return refused("WrongRelease", `shard ${to} runs Synapse ${shard.release}, tenant ${tenant.name} wants ${release}`);
  if (shard.drain !== undefined || shard.phase === "Draining")
    return refused("Draining", `shard ${to} is being drained`);
  if (shard.phase !== "Ready") return refused("NotReady", `shard ${to} is ${shard.phase}, not Ready`);
  if (world.isolatedShards.has(to)) return refused("ForAnotherAlone", `shard ${to} is for another tenant alone`);
  const taken = world.placesTaken(to);
  if (aloneAs(tenant) && taken > 0)
    return refused(
      tenant.isolated ? "Quarantined" : "Dedicated",
      `tenant ${tenant.name} is ${aloneAs(tenant)}, and shard ${to} has other tenants`,
    );
  if (taken >= world.policy.maxTenantsPerShard)
    return refused("ShardFull", `shard ${to} has ${taken} of at most ${world.policy.maxTenantsPerShard} tenants`);
  return { shard: to };
}

function chooseBest(world: World, tenant: SnapshotTenant): Target {
  const release = wantedRelease(world, tenant);
  const load = (shard: SnapshotShard) => world.placesTaken(shard.name);
  const [best] = (world.shardsOfRelease.get(release) ?? [])
    .filter((shard) => isUsable(shard) && shard.name !== tenant.shard && !isForOne(world, shard.name))
    .filter((shard) => load(shard) < (aloneAs(tenant) ? 1 : world.policy.maxTenantsPerShard))
    .toSorted((a, b) => Number(b.phase === "Ready") - Number(a.phase === "Ready") || load(b) - load(a));
  if (best) return { shard: best.name };
  const draft = openDraft(world);
  const places = placesOf(draft, release);
  const create = nextShardName(draft, places);
  if (create !== undefined) return { create };
  const no = noPlace(draft, release, mustBeAlone(tenant));
  if (no.reason === "ShardFailed") return refused(no.reason, no.message);
  const other = presentRelease(world, tenant) === release ? "other " : "";
  const { maxShardsPerSynapseImageTag } = world.policy;
  return refused(
    "MaxShardsReached",
    `no ${other}shard of Synapse ${release} has a free place, and no more than ${maxShardsPerSynapseImageTag} may exist`,
  );
}

function refused(reason: RefusalReason, message: string): Target {
  return { refused: reason, message };
}
