import type { Action, NewShardReason, NoPlaceReason } from "./actions.ts";
import { loadOfShard, peakOf } from "./loads.ts";
import type { SnapshotShard } from "./snapshot.ts";
import { type AloneAs, isAlive, isUsable, shardIndex } from "./snapshot-facts.ts";
import type { World } from "./world.ts";

export interface Place {
  shard: string;
  /** Its shard answers, so that a tenant can be moved there at once. */
  ready: boolean;
  /** Nobody else gets a place there. */
  alone?: boolean;
}

interface Candidate {
  name: string;
  taken: number;
  /** Share of a core; with what this plan adds to it. */
  load: number;
}

/**
 * Candidates with room: those below their CPU target, fullest first, then the others, coolest first. Filling the first keeps the order, so
 * taking a place needs no search, unless that one becomes hot.
 */
interface Queue {
  items: Candidate[];
  next: number;
}

/**
 * The places of one release, as they are taken in the course of one plan. A place that is only meant for a tenant (which
 * cannot move yet) is taken too: otherwise the next plan would make another shard for the same tenants.
 */
export interface ReleasePlaces {
  release: string;
  ready: Queue;
  /** Not answering yet, made by this plan, or no longer drained. */
  coming: Queue;
  /** Being drained by consolidation: the drain can be called off. Fullest first. */
  drained: Queue;
  /** Of heavy tenants, which then are alone no longer: for who finds no other place. */
  heavy: Queue;
  /** Shards that exist, in any phase, and those made by this plan. */
  shards: number;
  /** Shards that cannot be started, where none has shown that the release runs at all: no more are made then. */
  failed: string[];
  usedIndexes: Set<number>;
  nextIndex: number;
}

/** One plan in the making: who got which place, and what has to be done for it. */
export interface Draft {
  world: World;
  releases: Map<string, ReleasePlaces>;
  actions: Action[];
  /** Places taken by this plan, per shard. */
  planned: Map<string, number>;
  /** Tenants that leave their shard in this plan, or for which a place elsewhere is kept. */
  handled: Set<string>;
  /** Drains that this plan calls off. */
  cancelled: Set<string>;
  /** Versions in which this plan, or a move under way, changes something other than who sleeps. */
  busy: Set<string>;
  /** Versions in which tenants fall asleep or wake. */
  restless: Set<string>;
  moves: number;
  /** Tenants that are being woken, those of this plan included. */
  wakes: number;
  /** By release: tenants without a place, for which others may be put to sleep. */
  lacking: Map<string, number>;
}

export function openDraft(world: World): Draft {
  const busy = new Set<string>();
  const restless = new Set<string>();
  for (const tenant of world.unsettled) {
    if (!tenant.move && !tenant.deleting) continue;
    const set = tenant.fallingAsleep && !tenant.move ? restless : busy;
    for (const name of [tenant.shard, tenant.move?.from, tenant.move?.to]) {
      const release = name === undefined ? undefined : world.shardByName.get(name)?.release;
      if (release !== undefined) set.add(release);
    }
  }
  return {
    world,
    releases: new Map(),
    actions: [],
    planned: new Map(),
    handled: new Set(),
    cancelled: new Set(),
    busy,
    restless,
    moves: world.movesUnderWay,
    wakes: world.wakesUnderWay,
    lacking: new Map(),
  };
}

export interface PlaceOptions {
  /** For a move: a shard that answers is better than a fuller one that does not. */
  preferReady: boolean;
  /** Whether a drain may be called off or a shard made for it. */
  mayGrow: boolean;
  /** A shard without any other tenant, which then is full: a quarantined one gets that or no place, a dedicated one rather that than any. */
  alone?: AloneAs;
  /** The same if there is one, or one can be made and yet another one for others; else any place. */
  ratherAlone?: boolean;
  /** The share of a core that the tenant takes, where it is known: it goes where that fits, if it fits anywhere. */
  share?: number;
  /** The shard it is wanted on: that one, if it can take it. */
  pin?: string;
  /** Shards to be taken only if there is no other. */
  avoid?: ReadonlySet<string>;
  /** The one of `pin`, none of `avoid`, or no place. */
  only?: boolean;
  /** It is for a tenant that wakes. */
  wakes?: boolean;
}

/** Takes a place on a shard of the release, or says that there is none. */
export function takePlace(draft: Draft, release: string, options: PlaceOptions): Place | undefined {
  const place = findPlace(draft, release, options);
  if (place) (options.wakes ? draft.restless : draft.busy).add(release);
  return place;
}

function findPlace(draft: Draft, release: string, options: PlaceOptions): Place | undefined {
  const places = placesOf(draft, release);
  const empty = options.alone && takeEmpty(draft, places, options.mayGrow, options.alone);
  if (empty || options.alone === "quarantined") return empty;
  const own = options.ratherAlone ? takeOwnShard(draft, release, options.mayGrow) : undefined;
  if (own) return own;
  const wanted = options.pin === undefined ? undefined : takeNamed(draft, places, options.pin, options.share);
  if (wanted) return wanted;
  if (options.only && options.pin !== undefined) return undefined;
  const place = takeExisting(draft, places, options);
  if (place || !options.mayGrow) return place;
  if (!callOffDrain(draft, places) && !createShard(draft, places) && !joinHeavy(draft, places)) return undefined;
  return takeExisting(draft, places, options);
}

/** A shard for a tenant alone, made if need be. */
export function takeEmptyShard(draft: Draft, release: string, what: AloneAs): Place | undefined {
  return takeEmpty(draft, placesOf(draft, release), true, what);
}

/** A shard for a heavy tenant alone: never the last one that may be made, which is for tenants without a place. */
export function takeOwnShard(draft: Draft, release: string, mayGrow: boolean): Place | undefined {
  const places = placesOf(draft, release);
  const isLast = places.shards + 1 >= draft.world.policy.maxShardsPerSynapseImageTag;
  return takeEmpty(draft, places, mayGrow && !isLast, "heavy");
}

/** Takes the whole of an empty shard: a shard that answers, else a coming one, else a new one. */
function takeEmpty(draft: Draft, places: ReleasePlaces, mayGrow: boolean, what: AloneAs | "heavy"): Place | undefined {
  const emptyIn = (queue: Queue) => queue.items.find((candidate) => candidate.taken === 0);
  const ready = emptyIn(places.ready);
  let chosen = ready ?? emptyIn(places.coming);
  if (!chosen && mayGrow && createShard(draft, places, `and no shard of it is empty, as a ${what} tenant needs one`))
    chosen = places.coming.items.at(-1);
  if (!chosen) return undefined;
  chosen.taken = Number.POSITIVE_INFINITY;
  draft.planned.set(chosen.name, 1);
  draft.busy.add(places.release);
  return { shard: chosen.name, ready: chosen === ready, alone: true };
}

/** Places left without making shards or calling off drains. */
export function freePlaces(draft: Draft, release: string): number {
  const { ready, coming } = placesOf(draft, release);
  return roomIn(draft, ready) + roomIn(draft, coming);
}

/** Places that could still be had: by calling off drains, by making shards, and beside heavy tenants. */
export function growthPlaces(draft: Draft, release: string): number {
  const { maxShardsPerSynapseImageTag, maxTenantsPerShard } = draft.world.policy;
  const places = placesOf(draft, release);
  const more = places.failed.length > 0 ? 0 : Math.max(0, maxShardsPerSynapseImageTag - places.shards);
  return roomIn(draft, places.drained) + roomIn(draft, places.heavy) + more * maxTenantsPerShard;
}

/** Why there is no place. @param alone where one is needed that is nobody else's */
export function noPlace(draft: Draft, release: string, alone?: AloneAs): { reason: NoPlaceReason; message: string } {
  const { maxShardsPerSynapseImageTag, maxTenantsPerShard } = draft.world.policy;
  const { shards, failed } = placesOf(draft, release);
  if (failed.length > 0 && shards < maxShardsPerSynapseImageTag) {
    const message =
      `shard ${failed.join(" and ")} of Synapse ${release} cannot be started (its status says why), and no other shard ` +
      `of this release is made before one of them is Ready`;
    return { reason: "ShardFailed", message };
  }
  const lacking = alone
    ? `it is ${alone} and needs a shard of its own, none of Synapse ${release} is empty`
    : `no shard of Synapse ${release} has a free place (at most ${maxTenantsPerShard} tenants each)`;
  const message = `${lacking}, and ${shards} of at most ${maxShardsPerSynapseImageTag} shards exist`;
  return { reason: "MaxShardsReached", message };
}

/** Places taken on a shard, those of this plan included. */
export function placesTakenWith({ world, planned }: Draft, shard: string): number {
  return world.placesTaken(shard) + (planned.get(shard) ?? 0);
}

export function placesOf(draft: Draft, release: string): ReleasePlaces {
  let places = draft.releases.get(release);
  if (!places) {
    places = readPlaces(draft.world, release);
    draft.releases.set(release, places);
  }
  return places;
}

function readPlaces(world: World, release: string): ReleasePlaces {
  const shards = world.shardsOfRelease.get(release) ?? [];
  const proven = shards.some((shard) => shard.phase === "Ready" || shard.phase === "Draining");
  const isHeavy = (shard: SnapshotShard) => world.heavyShards.has(shard.name);
  const queueOf = (wanted: (shard: SnapshotShard) => boolean, heavy = false): Queue => ({
    items: shards
      .filter((shard) => wanted(shard) && isHeavy(shard) === heavy && !world.isolatedShards.has(shard.name))
      .map((shard) => ({
        name: shard.name,
        taken: world.placesTaken(shard.name),
        load: peakOf(loadOfShard(world, shard.name)),
      }))
      .filter((candidate) => candidate.taken < world.policy.maxTenantsPerShard)
      // Stable: shards that are equally full stay in the order of their index.
      .toSorted((a, b) => heat(world, a) - heat(world, b) || b.taken - a.taken),
    next: 0,
  });
  return {
    release,
    ready: queueOf((shard) => isUsable(shard) && shard.phase === "Ready"),
    coming: queueOf((shard) => isUsable(shard) && shard.phase !== "Ready"),
    drained: queueOf((shard) => shard.drain === "Consolidation" && isAlive(shard)),
    heavy: queueOf((shard) => isUsable(shard) && shard.phase === "Ready", true),
    shards: shards.length,
    failed: proven ? [] : shards.filter((shard) => shard.phase === "Failed").map((shard) => shard.name),
    usedIndexes: new Set(shards.map((shard) => shardIndex(shard.name))),
    nextIndex: 0,
  };
}

/** How much a shard takes, if that is more than it should; else 0. */
function heat({ policy }: World, { load, taken }: Candidate, share = 0): number {
  const { cpuTarget } = policy.balancing;
  return cpuTarget > 0 && taken > 0 && load + share >= cpuTarget ? load : 0;
}

function takeNamed(draft: Draft, places: ReleasePlaces, name: string, share = 0): Place | undefined {
  const hasRoom = (candidate: Candidate) =>
    candidate.name === name && candidate.taken < draft.world.policy.maxTenantsPerShard;
  const ready = places.ready.items.find(hasRoom);
  const chosen = ready ?? places.coming.items.find(hasRoom);
  return chosen && take(draft, chosen, share, chosen === ready);
}

function take(draft: Draft, chosen: Candidate, share: number, ready: boolean): Place {
  chosen.taken++;
  chosen.load += share;
  draft.planned.set(chosen.name, (draft.planned.get(chosen.name) ?? 0) + 1);
  return { shard: chosen.name, ready };
}

function takeExisting(
  draft: Draft,
  places: ReleasePlaces,
  { preferReady, share = 0, avoid, only = false }: Omit<PlaceOptions, "mayGrow">,
): Place | undefined {
  const good = (queue: Queue) => firstOf(draft, queue, share, avoid);
  const [ready, coming] = [good(places.ready), good(places.coming)];
  if (ready || coming || !avoid || only) return takeBetter(draft, ready, coming, { preferReady, share });
  const any = (queue: Queue) => firstOf(draft, queue, share);
  return takeBetter(draft, any(places.ready), any(places.coming), { preferReady, share });
}

function takeBetter(
  draft: Draft,
  ready: Candidate | undefined,
  coming: Candidate | undefined,
  { preferReady, share }: { preferReady: boolean; share: number },
): Place | undefined {
  const isBetter = ready && coming && heat(draft.world, coming, share) === 0 && heat(draft.world, ready, share) > 0;
  const useReady = ready && (preferReady || !coming || !(isBetter || isFuller(coming, ready)));
  const chosen = useReady ? ready : coming;
  return chosen && take(draft, chosen, share, Boolean(useReady));
}

function isFuller(a: Candidate, b: Candidate): boolean {
  return a.taken > b.taken || (a.taken === b.taken && shardIndex(a.name) < shardIndex(b.name));
}

/** The fullest on which the share stays below the CPU target; else the coolest. */
function firstOf({ world }: Draft, queue: Queue, share = 0, avoid?: ReadonlySet<string>): Candidate | undefined {
  const { maxTenantsPerShard } = world.policy;
  let coolest: Candidate | undefined;
  for (let index = queue.next; index < queue.items.length; index++) {
    const candidate = queue.items[index];
    const hasRoom = candidate !== undefined && candidate.taken < maxTenantsPerShard;
    if (!hasRoom && index === queue.next) queue.next++;
    if (!hasRoom || avoid?.has(candidate.name)) continue;
    if (heat(world, candidate, share) === 0) return candidate;
    if (!coolest || candidate.load < coolest.load) coolest = candidate;
  }
  return coolest;
}

function roomIn(draft: Draft, queue: Queue): number {
  const { maxTenantsPerShard } = draft.world.policy;
  let room = 0;
  for (let i = queue.next; i < queue.items.length; i++)
    room += Math.max(0, maxTenantsPerShard - (queue.items[i]?.taken ?? 0));
  return room;
}

function callOffDrain(draft: Draft, places: ReleasePlaces): boolean {
  const candidate = firstOf(draft, places.drained);
  if (!candidate) return false;
  drop(places.drained, candidate);
  cancelDrain(draft, candidate.name, `every other shard of Synapse ${places.release} is full`);
  places.coming.items.push(candidate);
  return true;
}

/** Opens a heavy tenant's shard to others. */
function joinHeavy(draft: Draft, places: ReleasePlaces): boolean {
  const candidate = firstOf(draft, places.heavy);
  if (!candidate) return false;
  drop(places.heavy, candidate);
  places.ready.items.push(candidate);
  return true;
}

function drop(queue: Queue, candidate: Candidate): void {
  queue.items.splice(queue.items.indexOf(candidate), 1);
}

/** Plans to call off a drain. The caller sees to the places. */
export function cancelDrain(draft: Draft, shard: string, message: string): void {
  draft.cancelled.add(shard);
  draft.actions.push({ type: "CancelDrain", shard, reason: "PlacesNeeded", message });
  const release = draft.world.shardByName.get(shard)?.release;
  if (release !== undefined) draft.busy.add(release);
}

/** A shard to which a tenant of another one is moved when it has come up. @returns its name */
export function createShardForLoad(draft: Draft, release: string, why: string): string | undefined {
  const places = placesOf(draft, release);
  if (!createShard(draft, places, why, "CpuTargetExceeded")) return undefined;
  const made = places.coming.items.at(-1);
  if (made) draft.planned.set(made.name, 1);
  return made?.name;
}

function createShard(
  draft: Draft,
  places: ReleasePlaces,
  because?: string,
  reason: NewShardReason = "AllShardsFull",
): boolean {
  const name = nextShardName(draft, places);
  if (name === undefined) return false;
  const { release } = places;
  const message =
    places.shards === 0
      ? `no shard of Synapse ${release} exists`
      : because === undefined
        ? `every usable one of the ${places.shards} shards of Synapse ${release} is full`
        : `${places.shards} shards of Synapse ${release} exist, ${because}`;
  draft.actions.push({ type: "CreateShard", name, release, reason, message });
  places.usedIndexes.add(shardIndex(name));
  places.shards++;
  places.coming.items.push({ name, taken: 0, load: 0 });
  draft.busy.add(release);
  return true;
}

/**
 * The name with the lowest index that no shard bears, in whichever phase, and no tenant remembers; undefined where no shard
 * may be made: at the maximum, and while the release's shards only fail.
 */
export function nextShardName(draft: Draft, places: ReleasePlaces): string | undefined {
  if (places.failed.length > 0 || places.shards >= draft.world.policy.maxShardsPerSynapseImageTag) return undefined;
  const nameOf = (index: number) => `${places.release}-${index}`;
  const { goneShards } = draft.world;
  while (places.usedIndexes.has(places.nextIndex) || goneShards.has(nameOf(places.nextIndex))) places.nextIndex++;
  return nameOf(places.nextIndex);
}
