import { expect } from "vitest";
import type { Policy } from "../../src/model/policy.ts";
import { changesTheWorld, type Action } from "../../src/planner/actions.ts";
import type { SnapshotShard, Snapshot, SnapshotTenant } from "../../src/planner/snapshot.ts";

/**
 * What every plan must keep to, stated again and plainly: nothing here is shared with the planner, and speed does not matter.
 */
export function expectLawful(before: Snapshot, policy: Policy, actions: Action[]): void {
  const view = new View(before);
  expectNoOverfilling(view, policy, actions);
  expectAtMostMaximum(view, policy, actions);
  expectOnlyNeededMoves(view, actions);
  expectBoundedMoves(view, policy, actions);
  expectTargetsFit(view, actions);
  expectEveryTenantAccountedFor(view, policy, actions);
  expectShardsOnlyWhenFull(view, policy, actions);
  expectNoShardsAfterFailed(view, actions);
  expectWholeDrains(view, policy, actions);
  expectEmptyStops(view, actions);
  expectRestBeforeShrinking(view, before, policy, actions);
  expectIsolation(view, policy, actions);
  expectOneExplanation(actions);
  expectHeavyModest(view, policy, actions);
  expectSleep(view, before, policy, actions);
  expectBalance(view, before, policy, actions);
  expectWishes(view, before, actions);
}

class View {
  readonly tenants: Map<string, SnapshotTenant>;
  readonly shards: Map<string, SnapshotShard>;
  constructor({ tenants, shards }: Snapshot) {
    this.tenants = new Map(tenants.map((tenant) => [tenant.name, tenant]));
    this.shards = new Map(shards.map((shard) => [shard.name, shard]));
  }
  holders(shard: string): SnapshotTenant[] {
    return [...this.tenants.values()].filter(
      (t) => t.shard === shard || t.move?.to === shard || t.move?.from === shard,
    );
  }
  usable(release: string): SnapshotShard[] {
    return [...this.shards.values()].filter(
      (shard) =>
        shard.release === release &&
        isAlive(shard) &&
        !shard.drain &&
        !this.isIsolated(shard.name) &&
        !this.isOfHeavy(shard.name),
    );
  }
  /** A heavy tenant has the shard to itself, and may keep it. */
  isOfHeavy(shard: string): boolean {
    const [only, ...others] = this.holders(shard);
    return others.length === 0 && only?.heavy === true && !only.deleting;
  }
  isIsolated(shard: string): boolean {
    const [only, ...others] = this.holders(shard);
    if (others.length === 0 && only?.dedicated) return true;
    return this.holders(shard).some((tenant) => tenant.isolated);
  }
  /** A tenant that has been refused stays with the release it had, which the name of its shard tells. */
  wanted(tenant: SnapshotTenant): string {
    const refused = tenant.refusedRelease === tenant.release && tenant.shard !== undefined;
    return refused ? (tenant.shard ?? "").replace(/-\d+$/, "") : tenant.release;
  }
  mustLeave(tenant: SnapshotTenant): boolean {
    const shard = this.shards.get(tenant.shard ?? "");
    if (!shard || tenant.move || tenant.deleting) return false;
    if ((tenant.heavy || tenant.dedicated) && this.holders(shard.name).length > 1) return true;
    const away = shard.phase === "Lost" || shard.phase === "Stopping" || shard.drain !== undefined;
    return away || (shard.release !== tenant.release && tenant.refusedRelease !== tenant.release);
  }
}

function isAlive(shard: SnapshotShard): boolean {
  return !["Lost", "Failed", "Stopping"].includes(shard.phase);
}

function ofType<Type extends Action["type"]>(actions: Action[], type: Type): Extract<Action, { type: Type }>[] {
  return actions.filter((action): action is Extract<Action, { type: Type }> => action.type === type);
}

function arrivals(actions: Action[]): Map<string, number> {
  const count = new Map<string, number>();
  const add = (shard: string) => count.set(shard, (count.get(shard) ?? 0) + 1);
  for (const { shard } of ofType(actions, "Assign")) add(shard);
  for (const { shard } of ofType(actions, "Wake")) add(shard);
  for (const { to } of ofType(actions, "Move")) add(to);
  return count;
}

function expectNoOverfilling(view: View, policy: Policy, actions: Action[]): void {
  for (const [shard, count] of arrivals(actions))
    expect(view.holders(shard).length + count, `tenants on ${shard}`).toBeLessThanOrEqual(policy.maxTenantsPerShard);
}

function expectAtMostMaximum(view: View, policy: Policy, actions: Action[]): void {
  const created = ofType(actions, "CreateShard");
  for (const { name, release } of created) {
    const there = [...view.shards.values()].filter((shard) => shard.release === release).length;
    const more = created.filter((other) => other.release === release).length;
    expect(there + more, `shards of ${release}`).toBeLessThanOrEqual(policy.maxShardsPerSynapseImageTag);
    expect(view.shards.has(name), `${name} is taken`).toBe(false);
  }
}

function expectOnlyNeededMoves(view: View, actions: Action[]): void {
  const cancelled = new Set(ofType(actions, "CancelDrain").map((action) => action.shard));
  for (const move of ofType(actions, "Move")) {
    const tenant = view.tenants.get(move.tenant);
    if (!["Balance", "Placement"].includes(move.reason))
      expect(tenant && view.mustLeave(tenant), `${move.tenant} has a reason to move`).toBe(true);
    if (move.reason === "Consolidation") expect(cancelled.has(move.from)).toBe(false);
    expect(move.from).toBe(tenant?.shard);
  }
}

function expectBoundedMoves(view: View, policy: Policy, actions: Action[]): void {
  const planned = ofType(actions, "Move").length;
  const underWay = [...view.tenants.values()].filter((tenant) => tenant.move).length;
  if (planned > 0) expect(planned + underWay).toBeLessThanOrEqual(policy.maxConcurrentMoves);
}

function expectTargetsFit(view: View, actions: Action[]): void {
  const cancelled = new Set(ofType(actions, "CancelDrain").map((action) => action.shard));
  const created = new Map(ofType(actions, "CreateShard").map((action) => [action.name, action.release]));
  for (const { tenant, to } of ofType(actions, "Move")) {
    const shard = view.shards.get(to);
    expect(shard?.phase, `${to} answers`).toBe("Ready");
    expect(shard?.drain, `${to} is not drained`).toBeUndefined();
    const from = view.shards.get(view.tenants.get(tenant)?.shard ?? "");
    expect([view.tenants.get(tenant)?.release, from?.release]).toContain(shard?.release);
  }
  for (const { tenant, shard: name } of [...ofType(actions, "Assign"), ...ofType(actions, "Wake")]) {
    const shard = view.shards.get(name);
    const assigned = view.tenants.get(tenant);
    const wanted = assigned && view.wanted(assigned);
    expect(shard?.release ?? created.get(name)).toBe(wanted);
    expect(["Lost", "Failed", "Stopping"]).not.toContain(shard?.phase);
    if (shard?.drain) expect(cancelled.has(name)).toBe(true);
  }
}

/** Tenants that are being woken when the plan is carried out. */
function wakesAfter(view: View, actions: Action[]): number {
  const underWay = [...view.tenants.values()].filter((tenant) => tenant.waking && tenant.shard !== undefined);
  const begun = ofType(actions, "Assign").filter(({ tenant }) => {
    const before = view.tenants.get(tenant);
    return before?.waking !== undefined && before.shard === undefined;
  });
  return underWay.length + begun.length + ofType(actions, "Wake").length;
}

/** Nobody is put to sleep who is used, was woken a moment ago, or is being done something else with; and no more than are needed. */
function expectSleep(view: View, { now, nobodyWakes }: Snapshot, policy: Policy, actions: Action[]): void {
  const { afterIdleSeconds, minAwakeSeconds, maxConcurrentWakes } = policy.hibernation;
  const sleeps = ofType(actions, "Sleep");
  const wakes = ofType(actions, "Wake");
  if (nobodyWakes) expect(sleeps).toEqual([]);
  const others = new Set(
    actions
      .filter((action) => action.type !== "Sleep" && changesTheWorld(action))
      .map((action) => ("tenant" in action ? action.tenant : "")),
  );
  const falling = [...view.tenants.values()].filter((tenant) => tenant.fallingAsleep);
  expect(sleeps.length === 0 || sleeps.length + falling.length <= maxConcurrentWakes).toBe(true);
  for (const { tenant: name, shard, reason } of sleeps) {
    const tenant = view.tenants.get(name);
    const idle = tenant?.idle;
    expect(others.has(name), `${name} is put to sleep and nothing else`).toBe(false);
    expect(tenant?.shard).toBe(shard);
    expect(idle, `${name} is idle`).toBeDefined();
    expect(Boolean(tenant?.move || tenant?.deleting || tenant?.isolated || tenant?.waking)).toBe(false);
    if (!idle) continue;
    expect(now).toBeGreaterThanOrEqual(idle.notBefore ?? 0);
    if (!idle.wokenByTime) expect(now - (idle.awakeSince ?? 0)).toBeGreaterThanOrEqual(minAwakeSeconds * 1000);
    if (reason === "Idle")
      expect(now - idle.since).toBeGreaterThanOrEqual((idle.afterSeconds ?? afterIdleSeconds) * 1000);
    if (reason !== "Done") expect(idle.afterSeconds ?? afterIdleSeconds).toBeGreaterThan(0);
  }
  for (const release of new Set([...view.shards.values()].map((shard) => shard.release))) {
    const on = (name: string) => view.shards.get(name)?.release === release;
    const forRoom = sleeps.filter(({ shard, reason }) => reason === "PlacesNeeded" && on(shard)).length;
    const leaving = falling.filter(({ shard }) => on(shard ?? "")).length;
    const seekers = [...view.tenants.values()].filter(
      (tenant) =>
        view.wanted(tenant) === release &&
        (ofType(actions, "SetPending").some((action) => action.tenant === tenant.name) ||
          (tenant.asleep?.wakeAt ?? Number.POSITIVE_INFINITY) <= now),
    );
    if (forRoom > 0) expect(forRoom + leaving).toBeLessThanOrEqual(seekers.length);
  }
  for (const { tenant: name } of wakes)
    expect(view.tenants.get(name)?.asleep?.wakeAt ?? Number.POSITIVE_INFINITY).toBeLessThanOrEqual(now);
  const begun = wakesAfter(view, actions) - wakesAfter(view, []);
  if (begun > 0) expect(wakesAfter(view, actions)).toBeLessThanOrEqual(maxConcurrentWakes);
}

function expectEveryTenantAccountedFor(view: View, policy: Policy, actions: Action[]): void {
  const assigned = new Set(ofType(actions, "Assign").map((action) => action.tenant));
  const pending = new Set(ofType(actions, "SetPending").map((action) => action.tenant));
  const { maxConcurrentWakes } = policy.hibernation;
  const wakes = wakesAfter(view, actions);
  for (const tenant of view.tenants.values()) {
    const homeless = !tenant.deleting && !tenant.move && !view.shards.has(tenant.shard ?? "") && !tenant.asleep;
    // It waits for its turn: as many as may be are being woken.
    const waits = tenant.waking !== undefined && tenant.shard === undefined && wakes >= maxConcurrentWakes;
    if (waits && !assigned.has(tenant.name) && !pending.has(tenant.name)) continue;
    expect(Number(assigned.has(tenant.name)) + Number(pending.has(tenant.name)), `${tenant.name} accounted for`).toBe(
      Number(homeless),
    );
  }
  for (const action of actions) expect(action.message).not.toBe("");
}

/** The last shard made for a release must be needed: those who seek a place outnumber the places there are without it. */
function expectShardsOnlyWhenFull(view: View, policy: Policy, actions: Action[]): void {
  const room = (shard: SnapshotShard) => Math.max(0, policy.maxTenantsPerShard - view.holders(shard.name).length);
  const created = ofType(actions, "CreateShard").filter(({ reason }) => reason === "AllShardsFull");
  const woken = new Set(ofType(actions, "Wake").map(({ tenant }) => tenant));
  for (const release of new Set(created.map((action) => action.release))) {
    const seekers = [...view.tenants.values()].filter((tenant) => {
      if (tenant.deleting || tenant.move) return false;
      const shard = view.shards.get(tenant.shard ?? "");
      if (tenant.asleep) return woken.has(tenant.name) && view.wanted(tenant) === release;
      if (!shard) return view.wanted(tenant) === release;
      return view.mustLeave(tenant) && (tenant.release === release || shard.release === release);
    });
    // Each of these takes the whole of a shard that has nobody, or has one made.
    const isolated = seekers.filter((tenant) => tenant.isolated || tenant.dedicated || tenant.heavy).length;
    const seeking = seekers.length - isolated;
    const made = created.filter((action) => action.release === release).length;
    const recoverable = [...view.shards.values()].filter(
      (shard) =>
        shard.release === release &&
        shard.drain === "Consolidation" &&
        isAlive(shard) &&
        !view.isIsolated(shard.name) &&
        !view.isOfHeavy(shard.name),
    );
    if (made <= isolated) continue;
    const places = [...view.usable(release), ...recoverable].reduce((sum, shard) => sum + room(shard), 0);
    expect(seeking, `seekers of a place on ${release}`).toBeGreaterThan(
      places + (made - 1 - 2 * isolated) * policy.maxTenantsPerShard,
    );
    if (isolated > 0) continue;
    const cancelled = new Set(ofType(actions, "CancelDrain").map((action) => action.shard));
    for (const shard of recoverable)
      if (room(shard) > 0) expect(cancelled.has(shard.name), `${shard.name} is kept`).toBe(true);
  }
}

/** A release whose shards cannot be started gets no more of them until one has come up; waiting tenants are told which shard fails. */
function expectNoShardsAfterFailed(view: View, actions: Action[]): void {
  const failing = (release: string) => {
    const shards = [...view.shards.values()].filter((shard) => shard.release === release);
    const proven = shards.some((shard) => shard.phase === "Ready" || shard.phase === "Draining");
    return proven ? [] : shards.filter((shard) => shard.phase === "Failed");
  };
  for (const { name, release } of ofType(actions, "CreateShard"))
    expect(failing(release), `failed shards beside the new ${name}`).toEqual([]);
  for (const action of [...ofType(actions, "SetPending"), ...ofType(actions, "MarkWaiting")]) {
    if (action.reason !== "ShardFailed") continue;
    const tenant = view.tenants.get(action.tenant);
    const failed = failing(tenant ? view.wanted(tenant) : "").map((shard) => shard.name);
    expect(failed).not.toEqual([]);
    for (const name of failed) expect(action.message).toContain(name);
  }
}

function expectWholeDrains(view: View, policy: Policy, actions: Action[]): void {
  const drained = new Set(ofType(actions, "DrainShard").map((action) => action.shard));
  const releases = new Set([...drained].map((name) => view.shards.get(name)?.release ?? ""));
  for (const release of releases) {
    const staying = view.usable(release).filter((shard) => !drained.has(shard.name));
    expect(staying.length, `shards of ${release} that stay`).toBeGreaterThan(0);
    const leaving = [...drained].filter((name) => view.shards.get(name)?.release === release);
    const tenants = leaving.reduce((sum, name) => sum + view.holders(name).length, 0);
    const places = staying.reduce(
      (sum, shard) => sum + Math.max(0, policy.maxTenantsPerShard - view.holders(shard.name).length),
      0,
    );
    expect(tenants, `tenants of ${leaving.join(", ")}`).toBeLessThanOrEqual(places);
    const all = view.usable(release);
    const load = all.reduce((sum, shard) => sum + view.holders(shard.name).length, 0);
    expect(load / (staying.length + 1)).toBeLessThan(policy.avgShardsLoadRedistributionThreshold);
  }
}

/** A quarantined tenant has no neighbours, a dedicated one gets to where it has none as long as shards may be made; and neither gets any. */
function expectIsolation(view: View, policy: Policy, actions: Action[]): void {
  const arriving = arrivals(actions);
  const targets = [
    ...ofType(actions, "Assign").map(({ tenant, shard }) => ({ tenant, shard })),
    ...ofType(actions, "Wake").map(({ tenant, shard }) => ({ tenant, shard })),
    ...ofType(actions, "Move").map(({ tenant, to }) => ({ tenant, shard: to })),
  ];
  for (const { tenant, shard } of targets) {
    expect(view.isIsolated(shard), `${tenant} goes to ${shard}, which is for another tenant alone`).toBe(false);
    const { isolated, dedicated } = view.tenants.get(tenant) ?? {};
    if (!isolated && !(dedicated && mayGrow(view, policy, actions, releaseOfShard(shard)))) continue;
    expect(view.holders(shard), `${shard} is empty`).toEqual([]);
    expect(arriving.get(shard), `arrivals at ${shard}`).toBe(1);
  }
  const unassigned = new Set(ofType(actions, "Unassign").map((action) => action.tenant));
  for (const tenant of view.tenants.values()) {
    const shares =
      tenant.isolated === true &&
      !tenant.move &&
      !tenant.deleting &&
      view.shards.has(tenant.shard ?? "") &&
      view.holders(tenant.shard ?? "").length > 1;
    expect(unassigned.has(tenant.name), `${tenant.name} is taken off its shard`).toBe(shares);
  }
}

const releaseOfShard = (name: string) => name.replace(/-\d+$/, "");

/** Whether one more shard of the release could be made when the plan is carried out. */
function mayGrow(view: View, policy: Policy, actions: Action[], release: string): boolean {
  const shards = [...view.shards.values()].filter((shard) => shard.release === release);
  const made = ofType(actions, "CreateShard").filter((action) => action.release === release);
  const isProven = shards.some(({ phase }) => phase === "Ready" || phase === "Draining");
  if (!isProven && shards.some(({ phase }) => phase === "Failed")) return false;
  return shards.length + made.length < policy.maxShardsPerSynapseImageTag;
}

/** Two would take turns in its status at each plan. */
function expectOneExplanation(actions: Action[]): void {
  const explained = [...ofType(actions, "SetPending"), ...ofType(actions, "MarkWaiting")].map(({ tenant }) => tenant);
  expect(explained.toSorted()).toEqual([...new Set(explained)].toSorted());
}

/** A heavy tenant moves to where it is alone, stays where it is that already, and leaves the last shard to others. */
function expectHeavyModest(view: View, policy: Policy, actions: Action[]): void {
  const created = new Set(ofType(actions, "CreateShard").map((action) => action.name));
  for (const { tenant, from, to, reason } of ofType(actions, "Move")) {
    if (reason !== "CpuBudgetExceeded") continue;
    expect(view.tenants.get(tenant)?.heavy, `${tenant} is heavy`).toBe(true);
    expect(view.holders(from).length, `neighbours of ${tenant}`).toBeGreaterThan(1);
    expect(view.holders(to), `${to} is empty`).toEqual([]);
    expect(created.has(to)).toBe(false);
  }
  const heavyOnly = [...view.tenants.values()].every((tenant) => !view.mustLeave(tenant) || tenant.heavy === true);
  const homeless = [...view.tenants.values()].some((tenant) => !view.shards.has(tenant.shard ?? "") && !tenant.heavy);
  if (!heavyOnly || homeless) return;
  for (const { release, message } of ofType(actions, "CreateShard")) {
    if (!message.includes("heavy")) continue;
    const there = [...view.shards.values()].filter((shard) => shard.release === release).length;
    expect(there + 1, `shards of ${release}, with one left to make`).toBeLessThan(policy.maxShardsPerSynapseImageTag);
  }
}

/** A move for the load cools the hotter of both shards, once, by a tenant that may go; nothing is made or given up against the load. */
function expectBalance(view: View, { now, loads, windowClosed }: Snapshot, policy: Policy, actions: Action[]): void {
  const { cpuTarget, coolDownSeconds, tenantRestSeconds, movesPerHour } = policy.balancing;
  const moves = ofType(actions, "Move").filter(({ reason }) => reason === "Balance");
  const made = ofType(actions, "CreateShard").filter(({ reason }) => reason === "CpuTargetExceeded");
  if (cpuTarget === 0 || windowClosed) {
    expect([...moves, ...made, ...ofType(actions, "DrainShard").filter(() => windowClosed)]).toEqual([]);
    return;
  }
  const shardLoad = (name: string) => loads?.shards.get(name)?.share ?? 0;
  const recent = [...view.tenants.values()].flatMap(({ balanced }) => (balanced ? [balanced] : []));
  const lastHour = recent.filter(({ at }) => now - at < 3_600_000);
  if (moves.length > 0)
    expect(lastHour.length + moves.length).toBeLessThanOrEqual(
      Math.max(movesPerHour, Math.ceil(view.tenants.size / 100)),
    );
  const touched = moves.flatMap(({ from, to }) => [from, to]);
  expect(new Set(touched).size, "each shard is touched once").toBe(touched.length);
  for (const { tenant: name, from, to } of moves) {
    const tenant = view.tenants.get(name);
    const share = loads?.tenants.get(name)?.share ?? 0;
    expect(Math.max(shardLoad(from) - share, shardLoad(to) + share)).toBeLessThan(shardLoad(from));
    for (const { at, ...shards } of recent)
      if (now - at < coolDownSeconds * 1000)
        for (const shard of [shards.from, shards.to]) expect([from, to], `${shard} cools down`).not.toContain(shard);
    if (tenant?.balanced) expect(now - tenant.balanced.at).toBeGreaterThanOrEqual(tenantRestSeconds * 1000);
    expect(now).toBeGreaterThanOrEqual(tenant?.pinnedUntil ?? 0);
    expect(tenant?.heavy || tenant?.isolated || tenant?.dedicated, `${name} is balanced like any other`).toBeFalsy();
  }
  for (const { release } of made) {
    const ready = view.usable(release).filter(({ phase }) => phase === "Ready");
    const total = ready.reduce((sum, { name }) => sum + shardLoad(name), 0);
    const isFull = ready.every(({ name }) => view.holders(name).length >= policy.maxTenantsPerShard);
    if (!isFull) expect(total, `load of ${release}`).toBeGreaterThan(0.7 * cpuTarget * ready.length);
  }
  for (const { shard } of ofType(actions, "DrainShard")) {
    const release = view.shards.get(shard)?.release ?? "";
    const total = view.usable(release).reduce((sum, { name }) => sum + shardLoad(name), 0);
    const drained = ofType(actions, "DrainShard").filter((other) => view.shards.get(other.shard)?.release === release);
    expect(total).toBeLessThanOrEqual(0.7 * cpuTarget * (view.usable(release).length - drained.length));
  }
}

/** Who is moved for a wish comes to where it is wanted; nothing that tidies up moves who is to stay. */
function expectWishes(view: View, { now, windowClosed }: Snapshot, actions: Action[]): void {
  for (const { tenant: name, from, to, reason } of ofType(actions, "Move")) {
    const tenant = view.tenants.get(name);
    const { shard, spreadFrom = [] } = tenant?.placement ?? {};
    const apartFrom = new Set(spreadFrom.filter((other) => other !== name));
    const others = (where: string) => view.holders(where).filter((each) => apartFrom.has(each.name) && !each.deleting);
    if (["Balance", "Placement", "CpuBudgetExceeded"].includes(reason) && !tenant?.dedicated) {
      expect(windowClosed ?? false, "moved within a window").toBe(false);
      expect(now).toBeGreaterThanOrEqual(tenant?.pinnedUntil ?? 0);
    }
    if (reason === "Balance") {
      expect(shard, `${name} is wanted on ${from}`).not.toBe(from);
      expect(others(to), `${name} is kept apart`).toEqual([]);
    }
    if (reason !== "Placement") continue;
    if (tenant?.dedicated) expect(view.holders(from).length, `neighbours of ${name}`).toBeGreaterThan(1);
    else if (shard !== undefined) expect(to).toBe(shard);
    else {
      expect(others(from)).not.toEqual([]);
      expect(others(to)).toEqual([]);
    }
  }
}

/**
 * Shards are given up where placement rests; where tenants only wake and fall asleep, long after one was needed, and with a tenth of the
 * places left for those that wake next.
 */
function expectRestBeforeShrinking(view: View, { now }: Snapshot, policy: Policy, actions: Action[]): void {
  const restMs = policy.consolidateAfterSeconds * 1000;
  const arriving = arrivals(actions);
  const drained = ofType(actions, "DrainShard").map(({ shard }) => shard);
  const unused = ofType(actions, "StopShard").filter(({ reason }) => reason === "Unused");
  const gone = new Set([...drained, ...unused.map(({ shard }) => shard)]);
  for (const release of new Set([...gone].map((name) => view.shards.get(name)?.release ?? ""))) {
    const all = [...view.shards.values()].filter((shard) => shard.release === release);
    const counted = drained.some((name) => view.shards.get(name)?.release === release)
      ? all.filter(({ name }) => !view.isIsolated(name) && !view.isOfHeavy(name))
      : all;
    for (const shard of counted) expect(now - shard.lastAssignmentChange).toBeGreaterThanOrEqual(restMs);
    const isRestless = counted.some(({ lastSleepOrWake = -Infinity }) => now - lastSleepOrWake < restMs);
    const isWanted = [...view.tenants.values()].some((tenant) => !tenant.deleting && view.wanted(tenant) === release);
    if (!isRestless || !isWanted) continue;
    for (const shard of counted) expect(now - shard.grownAt).toBeGreaterThanOrEqual(10 * restMs);
    const staying = view.usable(release).filter(({ name }) => !gone.has(name));
    const taken = (name: string) => view.holders(name).length + (arriving.get(name) ?? 0);
    const free = staying.reduce((sum, { name }) => sum + Math.max(0, policy.maxTenantsPerShard - taken(name)), 0);
    const leaving = drained.filter((name) => view.shards.get(name)?.release === release);
    const moved = leaving.reduce((sum, name) => sum + taken(name), 0);
    expect(free - moved).toBeGreaterThanOrEqual((policy.maxTenantsPerShard * staying.length) / 10);
  }
}

function expectEmptyStops(view: View, actions: Action[]): void {
  const arriving = arrivals(actions);
  for (const { shard } of ofType(actions, "StopShard")) {
    expect(view.holders(shard), `${shard} is empty`).toEqual([]);
    expect(arriving.get(shard)).toBeUndefined();
  }
}
