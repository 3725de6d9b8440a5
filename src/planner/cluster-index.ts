import { DueTimes } from "./due-times.ts";
import type { Snapshot, SnapshotLoads, SnapshotShard, SnapshotTenant } from "./snapshot.ts";
import { aloneAs, byReleaseAndIndex, hasOpenWish, placesHeld, releaseOf, wantedInstead } from "./snapshot-facts.ts";

const NO_LOADS: SnapshotLoads = { shards: new Map(), tenants: new Map() };

/** A tenant as it was counted, so that exactly that can be taken back. */
interface Counted {
  view: SnapshotTenant;
  wanted: string;
  unsettled: boolean;
}

/** What is known by a shard's name, in one place: a look-up is what costs with a million tenants. */
interface Slot {
  /** Undefined for a shard that is gone and that tenants still name. */
  shard: SnapshotShard | undefined;
  /** Assigned to it. An array: they are few, and it is a tenth of a map. */
  tenants: SnapshotTenant[];
  /** Places taken; see `placesHeld`. */
  taken: number;
}

/**
 * What plans look up in a snapshot, kept current change by change: a plan then costs by the number of shards and of tenants
 * that something is to be done about, not by the number of all tenants. The same tenants and shards give the same index,
 * whichever way it came there.
 */
export class ClusterIndex {
  readonly #tenants = new Map<string, Counted>();
  /** Of a snapshot, and not in `#tenants` yet: a plan of a whole snapshot looks for none of them by its name. */
  #unnamed: readonly SnapshotTenant[] = [];
  readonly #shards = new Map<string, SnapshotShard>();
  readonly #slots = new Map<string, Slot>();
  readonly #unsettled = new Map<string, SnapshotTenant>();
  readonly #wanted = new Map<string, number>();
  readonly #idle = new Set<SnapshotTenant>();
  readonly #asleepUntil = new DueTimes();
  readonly #falling = new Map<string, number>();
  #moves = 0;
  #wakes = 0;
  #dueWakes = 0;
  /** No tenant falls asleep; see `Snapshot`. */
  nobodyWakes = false;
  /** Outside of the maintenance windows. */
  windowClosed = false;
  /** Not counted in: they change all the time, and are looked up by name. */
  loads: SnapshotLoads = NO_LOADS;
  /** Moved for the load at some time. */
  readonly #balanced = new Set<SnapshotTenant>();
  #sortedShards: SnapshotShard[] | undefined;

  static of(snapshot: Snapshot): ClusterIndex {
    const index = new ClusterIndex();
    index.nobodyWakes = snapshot.nobodyWakes ?? false;
    index.windowClosed = snapshot.windowClosed ?? false;
    index.loads = snapshot.loads ?? NO_LOADS;
    for (const shard of snapshot.shards) index.setShard(shard);
    for (const tenant of snapshot.tenants) index.#enter(tenant, index.#counted(tenant));
    index.#unnamed = snapshot.tenants;
    return index;
  }

  /** Adds or replaces. The view is kept and must not be changed afterwards. */
  setTenant(view: SnapshotTenant): void {
    this.removeTenant(view.name);
    const counted = this.#counted(view);
    this.#tenants.set(view.name, counted);
    this.#enter(view, counted);
  }

  removeTenant(name: string): void {
    const counted = this.#byName().get(name);
    if (!counted) return;
    const { view, wanted, unsettled } = counted;
    this.#tenants.delete(name);
    if (!view.deleting) count(this.#wanted, wanted, -1);
    if (unsettled) this.#unsettled.delete(name);
    if (view.balanced) this.#balanced.delete(view);
    this.#countSleep(view, -1);
    const slot = view.shard === undefined ? undefined : this.#slot(view.shard);
    if (slot) slot.tenants.splice(slot.tenants.indexOf(view), 1);
    this.#hold(view, slot, -1);
  }

  setShard(view: SnapshotShard): void {
    this.#byName();
    const before = this.#shards.get(view.name);
    this.#shards.set(view.name, view);
    this.#slot(view.name).shard = view;
    this.#sortedShards = undefined;
    if (before?.release !== view.release) this.#countAgain(view.name);
  }

  removeShard(name: string): void {
    this.#byName();
    if (!this.#shards.delete(name)) return;
    this.#slot(name).shard = undefined;
    this.#sortedShards = undefined;
    this.#countAgain(name);
    this.#dropIfEmpty(name);
  }

  tenant(name: string): SnapshotTenant | undefined {
    return this.#byName().get(name)?.view;
  }

  get shardByName(): ReadonlyMap<string, SnapshotShard> {
    return this.#shards;
  }

  get movesUnderWay(): number {
    return this.#moves;
  }

  get wakesUnderWay(): number {
    return this.#wakes;
  }

  get dueUnderWay(): number {
    return this.#dueWakes;
  }

  get fallingAsleep(): number {
    let sum = 0;
    for (const count of this.#falling.values()) sum += count;
    return sum;
  }

  fallingAsleepOf(release: string): number {
    return this.#falling.get(release) ?? 0;
  }

  balanced(): Iterable<SnapshotTenant> {
    return this.#balanced;
  }

  get tenantCount(): number {
    return this.#tenants.size + this.#unnamed.length;
  }

  idle(): Iterable<SnapshotTenant> {
    return this.#idle;
  }

  dueAsleep(now: number, limit: number): SnapshotTenant[] {
    const names = this.#asleepUntil.due(now, limit);
    return names.map((name) => this.tenant(name)).filter((view) => view !== undefined);
  }

  /** Places taken on a shard; see `placesHeld`. */
  placesTaken(shard: string): number {
    return this.#slots.get(shard)?.taken ?? 0;
  }

  /** By release, then index. */
  shards(): SnapshotShard[] {
    this.#sortedShards ??= [...this.#shards.values()].toSorted(byReleaseAndIndex);
    return this.#sortedShards;
  }

  /** Tenants that are not simply where they shall be, by name. */
  unsettled(): SnapshotTenant[] {
    return [...this.#unsettled.values()].toSorted(byName);
  }

  tenantsOn(shard: string): SnapshotTenant[] {
    return (this.#slots.get(shard)?.tenants ?? []).toSorted(byName);
  }

  /** Versions that some tenant wants and that it has not been refused. */
  releasesWanted(): string[] {
    return [...this.#wanted.keys()];
  }

  /** Shards that are gone and that tenants still name: one of that name would have those tenants at once. */
  goneShards(): Set<string> {
    const gone = new Set<string>();
    for (const [name, { shard, taken }] of this.#slots) if (!shard && taken > 0) gone.add(name);
    return gone;
  }

  /** To be called before anything changes: what a tenant counts as depends on its shard. */
  #byName(): Map<string, Counted> {
    for (const view of this.#unnamed) this.#tenants.set(view.name, this.#counted(view));
    this.#unnamed = [];
    return this.#tenants;
  }

  #counted(view: SnapshotTenant): Counted {
    const shard = view.shard === undefined ? undefined : this.#slots.get(view.shard)?.shard;
    const present = view.shard === undefined ? undefined : releaseOf(view.shard, shard);
    const wanted = wantedInstead(view, present);
    if (view.asleep) return { view, wanted, unsettled: false };
    const isSpecial = aloneAs(view) !== undefined || view.heavy === true || hasOpenWish(view);
    const settled = shard !== undefined && present === wanted && !view.move && !view.deleting && !isSpecial;
    return { view, wanted, unsettled: !settled };
  }

  #enter(view: SnapshotTenant, { wanted, unsettled }: Counted): void {
    if (!view.deleting) count(this.#wanted, wanted, 1);
    if (unsettled) this.#unsettled.set(view.name, view);
    if (view.balanced) this.#balanced.add(view);
    this.#countSleep(view, 1);
    const slot = view.shard === undefined ? undefined : this.#slot(view.shard);
    slot?.tenants.push(view);
    this.#hold(view, slot, 1);
  }

  /** A look at three fields is all that it costs a tenant that is simply awake. */
  #countSleep(view: SnapshotTenant, by: 1 | -1): void {
    const { name, asleep, waking, idle, shard } = view;
    if (asleep?.wakeAt !== undefined && !view.deleting)
      if (by > 0) this.#asleepUntil.set(name, asleep.wakeAt);
      else this.#asleepUntil.delete(name);
    if (waking && shard !== undefined) {
      this.#wakes += by;
      if (waking.due) this.#dueWakes += by;
    }
    if (idle)
      if (by > 0) this.#idle.add(view);
      else this.#idle.delete(view);
    if (view.fallingAsleep && shard !== undefined) count(this.#falling, releaseOf(shard, undefined), by);
  }

  #hold(view: SnapshotTenant, slot: Slot | undefined, by: 1 | -1): void {
    if (!view.move) {
      if (!slot || view.shard === undefined) return;
      slot.taken += by;
      if (by < 0) this.#dropIfEmpty(view.shard);
      return;
    }
    this.#moves += by;
    for (const name of placesHeld(view)) {
      this.#slot(name).taken += by;
      if (by < 0) this.#dropIfEmpty(name);
    }
  }

  #slot(name: string): Slot {
    let slot = this.#slots.get(name);
    if (!slot) {
      slot = { shard: undefined, tenants: [], taken: 0 };
      this.#slots.set(name, slot);
    }
    return slot;
  }

  #dropIfEmpty(name: string): void {
    const slot = this.#slots.get(name);
    if (slot && !slot.shard && slot.taken === 0) this.#slots.delete(name);
  }

  /** Whether a tenant is at rest, and what it wants, depends on its shard. */
  #countAgain(shard: string): void {
    // A copy: counting again takes each out of the list and puts it back at its end.
    for (const view of Array.from(this.#slots.get(shard)?.tenants ?? [])) this.setTenant(view);
  }
}

function byName(a: SnapshotTenant, b: SnapshotTenant): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

function count(counts: Map<string, number>, key: string, by: number): void {
  const next = (counts.get(key) ?? 0) + by;
  if (next === 0) counts.delete(key);
  else counts.set(key, next);
}
