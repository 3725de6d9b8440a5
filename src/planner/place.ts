import type { Action, NoPlaceReason } from "./actions.ts";
import type { ShardView } from "./snapshot.ts";
import { isAlive, isUsable, shardIndex, type World } from "./world.ts";

export interface Place {
  shard: string;
  /** Its shard answers, so that a tenant can be moved there at once. */
  ready: boolean;
}

interface Candidate {
  name: string;
  taken: number;
}

/** Candidates with room, fullest first. Filling the first keeps the order, so taking a place needs no search. */
interface Queue {
  items: Candidate[];
  next: number;
}

/**
 * The places of one version, as they are taken in the course of one plan. A place that is only meant for a tenant (which
 * cannot move yet) is taken too: otherwise the next plan would make another shard for the same tenants.
 */
export interface VersionPlaces {
  version: string;
  ready: Queue;
  /** Not answering yet, made by this plan, or no longer drained. */
  coming: Queue;
  /** Being drained by consolidation: the drain can be called off. Fullest first. */
  drained: Queue;
  /** Shards that exist, in any phase, and those made by this plan. */
  shards: number;
  /** Shards that cannot be started, where none has shown that the release runs at all: no more are made then. */
  failed: string[];
  usedIndexes: Set<number>;
  nextIndex: number;
}

/** The books of one plan: who got which place, and what has to be done for it. */
export interface Ledger {
  world: World;
  versions: Map<string, VersionPlaces>;
  actions: Action[];
  /** Places taken by this plan, per shard. */
  planned: Map<string, number>;
  /** Tenants that leave their shard in this plan, or for which a place elsewhere is kept. */
  placed: Set<string>;
  /** Drains that this plan calls off. */
  cancelled: Set<string>;
  /** Versions in which this plan, or a move under way, changes something. */
  busy: Set<string>;
  moves: number;
}

export function openLedger(world: World): Ledger {
  const busy = new Set<string>();
  for (const tenant of world.restless) {
    if (!tenant.move && !tenant.deleting) continue;
    for (const name of [tenant.shard, tenant.move?.from, tenant.move?.to]) {
      const version = name === undefined ? undefined : world.shardByName.get(name)?.version;
      if (version !== undefined) busy.add(version);
    }
  }
  return {
    world,
    versions: new Map(),
    actions: [],
    planned: new Map(),
    placed: new Set(),
    cancelled: new Set(),
    busy,
    moves: world.movesUnderWay,
  };
}

export interface PlaceOptions {
  /** For a move: a shard that answers is better than a fuller one that does not. */
  preferReady: boolean;
  /** Whether a drain may be called off or a shard made for it. */
  mayGrow: boolean;
}

/** Takes a place on a shard of the version, or says that there is none. */
export function takePlace(ledger: Ledger, version: string, options: PlaceOptions): Place | undefined {
  const places = placesOf(ledger, version);
  const place = takeExisting(ledger, places, options.preferReady);
  if (place || !options.mayGrow) return place;
  if (!callOffDrain(ledger, places) && !createShard(ledger, places)) return undefined;
  return takeExisting(ledger, places, options.preferReady);
}

/** Places left without making shards or calling off drains. */
export function freePlaces(ledger: Ledger, version: string): number {
  const { ready, coming } = placesOf(ledger, version);
  return roomIn(ledger, ready) + roomIn(ledger, coming);
}

/** Places in shards that could still be had: by calling off drains and by making new ones. */
export function growthPlaces(ledger: Ledger, version: string): number {
  const { maxShardsPerSynapseImageTag, maxTenantsPerShard } = ledger.world.policy;
  const places = placesOf(ledger, version);
  const more = places.failed.length > 0 ? 0 : Math.max(0, maxShardsPerSynapseImageTag - places.shards);
  return roomIn(ledger, places.drained) + more * maxTenantsPerShard;
}

/** Why there is no place. */
export function noPlace(ledger: Ledger, version: string): { reason: NoPlaceReason; message: string } {
  const { maxShardsPerSynapseImageTag, maxTenantsPerShard } = ledger.world.policy;
  const { shards, failed } = placesOf(ledger, version);
  if (failed.length > 0 && shards < maxShardsPerSynapseImageTag) {
    const message =
      `shard ${failed.join(" and ")} of Synapse ${version} cannot be started (its status says why), and no other shard ` +
      `of this release is made before one of them is Ready`;
    return { reason: "ShardFailed", message };
  }
  const message =
    `no shard of Synapse ${version} has a free place (at most ${maxTenantsPerShard} tenants each), and ` +
    `${shards} of at most ${maxShardsPerSynapseImageTag} shards exist`;
  return { reason: "MaxShardsReached", message };
}

export function placesOf(ledger: Ledger, version: string): VersionPlaces {
  let places = ledger.versions.get(version);
  if (!places) {
    places = readPlaces(ledger.world, version);
    ledger.versions.set(version, places);
  }
  return places;
}

function readPlaces(world: World, version: string): VersionPlaces {
  const shards = world.shardsOfVersion.get(version) ?? [];
  const proven = shards.some((shard) => shard.phase === "Ready" || shard.phase === "Draining");
  const queueOf = (wanted: (shard: ShardView) => boolean): Queue => ({
    items: shards
      .filter(wanted)
      .map((shard) => ({ name: shard.name, taken: world.placesTaken(shard.name) }))
      .filter((candidate) => candidate.taken < world.policy.maxTenantsPerShard)
      // Stable: shards of equal load stay in the order of their index.
      .toSorted((a, b) => b.taken - a.taken),
    next: 0,
  });
  return {
    version,
    ready: queueOf((shard) => isUsable(shard) && shard.phase === "Ready"),
    coming: queueOf((shard) => isUsable(shard) && shard.phase !== "Ready"),
    drained: queueOf((shard) => shard.drain === "Consolidation" && isAlive(shard)),
    shards: shards.length,
    failed: proven ? [] : shards.filter((shard) => shard.phase === "Failed").map((shard) => shard.name),
    usedIndexes: new Set(shards.map((shard) => shardIndex(shard.name))),
    nextIndex: 0,
  };
}

function takeExisting(ledger: Ledger, places: VersionPlaces, preferReady: boolean): Place | undefined {
  const ready = firstOf(ledger, places.ready);
  const coming = firstOf(ledger, places.coming);
  const useReady = ready && (preferReady || !coming || !isFuller(coming, ready));
  const chosen = useReady ? ready : coming;
  if (!chosen) return undefined;
  chosen.taken++;
  ledger.planned.set(chosen.name, (ledger.planned.get(chosen.name) ?? 0) + 1);
  ledger.busy.add(places.version);
  return { shard: chosen.name, ready: Boolean(useReady) };
}

function isFuller(a: Candidate, b: Candidate): boolean {
  return a.taken > b.taken || (a.taken === b.taken && shardIndex(a.name) < shardIndex(b.name));
}

function firstOf(ledger: Ledger, queue: Queue): Candidate | undefined {
  for (; queue.next < queue.items.length; queue.next++) {
    const candidate = queue.items[queue.next];
    if (candidate && candidate.taken < ledger.world.policy.maxTenantsPerShard) return candidate;
  }
  return undefined;
}

function roomIn(ledger: Ledger, queue: Queue): number {
  const { maxTenantsPerShard } = ledger.world.policy;
  let room = 0;
  for (let i = queue.next; i < queue.items.length; i++) room += maxTenantsPerShard - (queue.items[i]?.taken ?? 0);
  return room;
}

function callOffDrain(ledger: Ledger, places: VersionPlaces): boolean {
  const candidate = firstOf(ledger, places.drained);
  if (!candidate) return false;
  places.drained.next++;
  cancelDrain(ledger, candidate.name, `every other shard of Synapse ${places.version} is full`);
  places.coming.items.push(candidate);
  return true;
}

/** Plans to call off a drain. Whoever calls it sees to the places. */
export function cancelDrain(ledger: Ledger, shard: string, message: string): void {
  ledger.cancelled.add(shard);
  ledger.actions.push({ type: "CancelDrain", shard, reason: "PlacesNeeded", message });
  const version = ledger.world.shardByName.get(shard)?.version;
  if (version !== undefined) ledger.busy.add(version);
}

function createShard(ledger: Ledger, places: VersionPlaces): boolean {
  const name = nextShardName(ledger, places);
  if (name === undefined) return false;
  const { version } = places;
  const message =
    places.shards === 0
      ? `no shard of Synapse ${version} exists`
      : `every usable one of the ${places.shards} shards of Synapse ${version} is full`;
  ledger.actions.push({ type: "CreateShard", name, version, reason: "AllShardsFull", message });
  places.usedIndexes.add(shardIndex(name));
  places.shards++;
  places.coming.items.push({ name, taken: 0 });
  ledger.busy.add(version);
  return true;
}

/**
 * The name with the lowest index that no shard bears, in whichever phase, and no tenant remembers; undefined where no shard
 * may be made: at the maximum, and while the release's shards only fail.
 */
export function nextShardName(ledger: Ledger, places: VersionPlaces): string | undefined {
  if (places.failed.length > 0 || places.shards >= ledger.world.policy.maxShardsPerSynapseImageTag) return undefined;
  const nameOf = (index: number) => `${places.version}-${index}`;
  const { goneShards } = ledger.world;
  while (places.usedIndexes.has(places.nextIndex) || goneShards.has(nameOf(places.nextIndex))) places.nextIndex++;
  return nameOf(places.nextIndex);
}
