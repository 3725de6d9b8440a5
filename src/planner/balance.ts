import type { KeepReason } from "./actions.ts";
import { loadOfShard, loadOfTenant, MEMORY_FULL, peakOf, percent } from "./loads.ts";
import { beginMove, isMovable } from "./move.ts";
import { createShardForLoad, placesOf, type Draft } from "./place.ts";
import type { SnapshotShard, SnapshotTenant } from "./snapshot.ts";
import { aloneAs, isUsable, placesHeld } from "./snapshot-facts.ts";
import { areApart, isWantedThere } from "./wishes.ts";
import { isForOne, wantedRelease, type World } from "./world.ts";

const HOUR_MS = 3_600_000;
/**
 * The hotter of both shards has to become cooler by this share of a core, or by all that the tenant takes: else the move is not worth its
 * blackout, or follows noise.
 */
const LEAST_GAIN = 0.04;
/** A tenant that takes less than this makes no difference. */
const LEAST_SHARE = 0.015;
/** Both are less by this where a shard below its target takes this many times the mean of its release: small tenants are what can be moved beside a large one. */
const SMALL_PART = 0.5;
const FAR_UNEVEN = 1.3;
/** A shard is hot if it is above its target for a minute, and above this part of it for ten: a burst is over before a tenant is moved for it. */
const LASTING_PART = 0.75;
/** Below the target, shards are evened out that take more than this many times the mean of their release… */
const UNEVEN = 1.2;
/** …if that is more than this part of the target. */
const UNEVEN_ABOVE = 0.4;
/** Another shard is made for the load only if all together take more than this part of their targets… */
export const GROW_ABOVE = 0.75;
/** …and one is given up only if the others take less than this afterwards: neither leads to the other. */
export const SHRINK_BELOW = 0.65;

interface Hot {
  shard: SnapshotShard;
  /** Above its target; else only uneven. */
  isHot: boolean;
  /** Decisions are made by what lasts. */
  load: number;
  /** Which part of the usual gain is worth a move. */
  part: number;
  why: string;
}

/** What happened for the load of late. */
interface Recent {
  moves: number;
  /** Shards that cool down, and until when. */
  until: ReadonlyMap<string, number>;
}

/**
 * Takes tenants off shards that take more than their CPU target, or clearly more than others of their release: one at a time from each
 * shard, the one that leaves the hotter of both shards coolest, and the hottest of those that do so equally well. As that shard has to
 * become cooler than the first one was, no move leads back; and tenants that were moved, and shards that were touched, rest afterwards.
 */
export function balance(draft: Draft): void {
  const { world } = draft;
  if (world.policy.balancing.cpuTarget === 0) return;
  let recent: Recent | undefined;
  const moving = new Set(world.unsettled.flatMap((tenant) => (tenant.move ? [...placesHeld(tenant)] : [])));
  for (const [release, all] of world.shardsOfRelease) {
    const shards = all.filter((shard) => shard.phase === "Ready" && isUsable(shard) && !isForOne(world, shard.name));
    const hot = hotShards(world, shards);
    if (hot.length === 0) continue;
    recent ??= recentOf(world);
    const coming = all.find((shard) => isUsable(shard) && shard.phase !== "Ready");
    const scene: Scene = { draft, release, shards, recent, moving, coming, coolest: coolestFirst(world, shards) };
    for (const each of hot) relieve(scene, each);
    // A shard that was made for the load waits for its tenant.
    if (draft.moves >= world.policy.maxConcurrentMoves)
      for (const { name } of shards) if (world.placesTaken(name) === 0) draft.planned.set(name, 1);
  }
}

/** The shards of one release, in one plan. What is the same for all its hot shards is found out once: they may be a thousand. */
interface Scene {
  draft: Draft;
  release: string;
  /** Those that answer and are for anybody. */
  shards: SnapshotShard[];
  coolest: { name: string; load: number }[];
  /** It has not come up yet. */
  coming: Pick<SnapshotShard, "name"> | undefined;
  recent: Recent;
  /** Shards that a tenant is on its way to, or from. */
  moving: Set<string>;
  isShort?: boolean;
}

function coolestFirst(world: World, shards: SnapshotShard[]): Scene["coolest"] {
  return shards
    .filter(({ name }) => canEverTake(world, name))
    .map(({ name }) => ({ name, load: peakOf(loadOfShard(world, name)) }))
    .toSorted((a, b) => a.load - b.load);
}

/** The hottest first. */
function hotShards(world: World, shards: SnapshotShard[]): Hot[] {
  const { cpuTarget } = world.policy.balancing;
  const mean = shards.reduce((sum, { name }) => sum + loadOfShard(world, name).lasting, 0) / shards.length;
  const found: Hot[] = [];
  for (const shard of shards) {
    const { share, lasting } = loadOfShard(world, shard.name);
    if (share >= cpuTarget && lasting >= LASTING_PART * cpuTarget) {
      const why = `shard ${shard.name} takes ${percent(share)} of a core, and its target is ${percent(cpuTarget)}`;
      found.push({ shard, isHot: true, load: lasting, part: 1, why });
    } else if (lasting > UNEVEN * mean && lasting > UNEVEN_ABOVE * cpuTarget && share > UNEVEN * mean) {
      const part = lasting > FAR_UNEVEN * mean ? SMALL_PART : 1;
      const why = `shard ${shard.name} takes ${percent(lasting)} of a core, and shards of its release ${percent(mean)} on average`;
      found.push({ shard, isHot: false, load: lasting, part, why });
    }
  }
  return found.toSorted((a, b) => b.load - a.load);
}

function recentOf(world: World): Recent {
  const { coolDownSeconds } = world.policy.balancing;
  const until = new Map<string, number>();
  let moves = 0;
  for (const { balanced } of world.balanced()) {
    if (!balanced || world.now - balanced.at >= HOUR_MS) continue;
    moves++;
    const end = balanced.at + coolDownSeconds * 1000;
    for (const shard of [balanced.from, balanced.to])
      if (end > Math.max(world.now, until.get(shard) ?? 0)) until.set(shard, end);
  }
  return { moves, until };
}

type Keep = (reason: KeepReason, because: string) => void;

function relieve(scene: Scene, hot: Hot): void {
  const { draft, release, recent, moving } = scene;
  const { world } = draft;
  const { balancing, maxConcurrentMoves } = world.policy;
  const { name } = hot.shard;
  const keep: Keep = (reason, because) =>
    draft.actions.push({ type: "KeepTenants", shard: name, reason, message: `${hot.why}; it keeps them: ${because}` });
  if (world.windowClosed) return keep("OutsideWindow", "no maintenance window is open");
  if (draft.moves >= maxConcurrentMoves) return keep("MoveUnderWay", "as many moves as may be are under way");
  if (moving.has(name) || draft.planned.has(name))
    return keep("MoveUnderWay", "a tenant is on its way to it, or from it");
  if (recent.until.has(name)) return keep("CoolDown", "a tenant was moved for the load a moment ago");
  const budget = Math.max(balancing.movesPerHour, Math.ceil(world.tenantCount / 100));
  if (recent.moves >= budget)
    return keep(
      "BudgetSpent",
      `${recent.moves} tenants were moved for the load within an hour, which is as many as may be`,
    );
  const movable = world.tenantsOn(name).filter((tenant) => mayMove(draft, tenant, release));
  if (movable.length === 0)
    return keep("NobodyMovable", "each of its tenants is where somebody wants it, or was moved a while ago at most");
  const isFree = (shard: string) =>
    shard !== name && !moving.has(shard) && !recent.until.has(shard) && !draft.planned.has(shard);
  const target = scene.coolest.find((candidate) => isFree(candidate.name));
  const best = target && bestMove(world, hot, movable, target);
  if (!best) return grow(scene, hot, movable, keep);
  const { tenant, to, share } = best;
  const message = `${hot.why}; it takes ${percent(share)} itself, and ${to} only ${percent(loadOfShard(world, to).lasting)}`;
  recent.moves++;
  moving.add(name).add(to);
  draft.planned.set(to, (draft.planned.get(to) ?? 0) + 1);
  beginMove(draft, tenant, { shard: to, ready: true }, "Balance", message);
}

function mayMove({ world, handled }: Draft, tenant: SnapshotTenant, release: string): boolean {
  const { now, policy } = world;
  const { balanced, pinnedUntil, moveNotBefore, heavy, waking } = tenant;
  if (!isMovable(tenant) || handled.has(tenant.name) || aloneAs(tenant) || heavy || waking) return false;
  if (isWantedThere(tenant)) return false;
  if (wantedRelease(world, tenant) !== release) return false;
  if (balanced && now - balanced.at < policy.balancing.tenantRestSeconds * 1000) return false;
  return now >= Math.max(pinnedUntil ?? 0, moveNotBefore ?? 0);
}

/** Whether it has a place and memory. */
function canEverTake(world: World, shard: string): boolean {
  const memory = world.loads.shards.get(shard)?.memoryRatio ?? 0;
  return world.placesTaken(shard) < world.policy.maxTenantsPerShard && memory < MEMORY_FULL;
}

interface Effect {
  share: number;
  /** What the hotter of both shards takes afterwards. */
  after: number;
  isWorthIt: boolean;
}

interface Option extends Effect {
  tenant: SnapshotTenant;
  to: string;
}

/**
 * Whoever goes, the coolest shard is the best for it.
 * @returns undefined where no move makes the hotter of both shards clearly cooler
 */
function bestMove(
  world: World,
  hot: Hot,
  movable: SnapshotTenant[],
  target: { name: string; load: number },
): Option | undefined {
  const there = world.tenantsOn(target.name);
  let best: Option | undefined;
  for (const tenant of movable) {
    // A small gain moves nobody back to where it came from.
    if (hot.part < 1 && tenant.balanced?.from === target.name) continue;
    const option = { tenant, to: target.name, ...effectOf(world, tenant, hot, target.load) };
    if (!option.isWorthIt || there.some((other) => areApart(tenant, other))) continue;
    if (!best || option.after < best.after || (option.after === best.after && option.share > best.share)) best = option;
  }
  return best;
}

/** What a tenant's move from a shard to another would do to the hotter of both. */
function effectOf(world: World, tenant: SnapshotTenant, { load: from, part }: Hot, to: number): Effect {
  const share = loadOfTenant(world, tenant.name).lasting;
  const after = Math.max(from - share, to + share);
  const isWorthIt = share >= part * LEAST_SHARE && after <= from - Math.min(part * LEAST_GAIN, share);
  return { share, after, isWorthIt };
}

/** Makes a shard for the tenant that would leave this one coolest, where the shards that exist do not have the processor time. */
function grow(scene: Scene, hot: Hot, movable: SnapshotTenant[], keep: Keep): void {
  const { draft, release, shards, coming } = scene;
  const { world } = draft;
  const { maxShardsPerSynapseImageTag } = world.policy;
  if (coming) {
    // It is not given up as one that nobody needs.
    draft.planned.set(coming.name, (draft.planned.get(coming.name) ?? 0) + 1);
    draft.busy.add(release);
    return keep("ShardComing", `${coming.name} has not come up yet`);
  }
  if (!hot.isHot) return keep("NoBetterPlace", "no other shard would be clearly cooler with one of them");
  const helps = movable.some((tenant) => effectOf(world, tenant, hot, 0).isWorthIt);
  if (!helps) return keep("NoBetterPlace", "no single tenant of it would make a difference elsewhere");
  scene.isShort ??= isShort(world, shards);
  if (!scene.isShort) return keep("NoBetterPlace", "no other shard would be clearly cooler with one of them");
  // The last one that may be made is for tenants without a place.
  if (placesOf(draft, release).shards + 1 >= maxShardsPerSynapseImageTag)
    return keep(
      "NoBetterPlace",
      `no other shard can take one, and no more than ${maxShardsPerSynapseImageTag} may exist, the last of them for tenants without a place`,
    );
  const name = createShardForLoad(draft, release, `and ${hot.why}`);
  if (name === undefined) return keep("NoBetterPlace", "no shard can be made");
  // One at a time: how hot the others are is another matter when it has taken a tenant.
  scene.coming = { name };
}

/** Whether one more shard is needed for the load: of processor time, or of places, where consolidation would not take it away again. */
function isShort(world: World, shards: SnapshotShard[]): boolean {
  const { balancing, maxTenantsPerShard, avgShardsLoadRedistributionThreshold } = world.policy;
  const total = shards.reduce((sum, { name }) => sum + loadOfShard(world, name).lasting, 0);
  if (total > GROW_ABOVE * balancing.cpuTarget * shards.length) return true;
  const taken = shards.map(({ name }) => world.placesTaken(name));
  const average = taken.reduce((sum, count) => sum + count, 0) / (shards.length + 1);
  return taken.every((count) => count >= maxTenantsPerShard) && average >= avgShardsLoadRedistributionThreshold;
}
