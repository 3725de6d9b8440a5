import type { HibernationPolicy } from "../model/policy.ts";
import type { PlannedSleepReason } from "./actions.ts";
import { takePlace, type Draft } from "./place.ts";
import type { SnapshotIdle, SnapshotTenant } from "./snapshot.ts";
import { mustBeAlone } from "./snapshot-facts.ts";
import { presentRelease, wantedRelease } from "./world.ts";
import { placeOptionsFor } from "./wishes.ts";

/** A tenant that was woken for what was due sleeps again when it has had nothing to do for this time. */
const DONE_AFTER_SECONDS = 5;

/**
 * Wakes tenants for which something is due, the longest due first, where there is a place. They leave half of the wakes that may be under
 * way at once to those that somebody waits for.
 */
export function wakeDue(draft: Draft): void {
  const { world, actions } = draft;
  const most = world.policy.hibernation.maxConcurrentWakes;
  let room = Math.min(most - draft.wakes, Math.max(1, Math.floor(most / 2)) - world.dueUnderWay);
  if (room <= 0) return;
  for (const tenant of world.dueAsleep(room)) {
    const release = wantedRelease(world, tenant);
    const options = { ...placeOptionsFor(world, tenant), ratherAlone: false, wakes: true };
    const place = takePlace(draft, release, { preferReady: true, mayGrow: true, ...options });
    if (!place) {
      if (!mustBeAlone(tenant)) lack(draft, release);
      continue;
    }
    room--;
    draft.wakes++;
    const message = `what it sleeps until is due; ${place.shard} has a free place`;
    actions.push({ type: "Wake", tenant: tenant.name, shard: place.shard, reason: "Due", message });
  }
}

/** Another tenant of the release has no place, and there is none to be had but by one that falls asleep. */
export function lack(draft: Draft, release: string): void {
  draft.lacking.set(release, (draft.lacking.get(release) ?? 0) + 1);
}

/**
 * Puts tenants to sleep that nobody uses: those whose time has come, and before their time those that were used longest ago, where others of
 * their release have no place. One that was woken stays awake for a while, so that two cannot take a place from each other in turn.
 */
export function putToSleep(draft: Draft): void {
  const { world } = draft;
  const { hibernation } = world.policy;
  if (world.nobodyWakes) return;
  let room = hibernation.maxConcurrentWakes - world.fallingAsleep;
  if (room <= 0) return;
  const idle = candidates(draft, hibernation);
  for (const { tenant, facts } of idle) {
    if (room <= 0) return;
    const why = reasonFor(draft, tenant, facts, hibernation);
    if (!why || tenant.shard === undefined) continue;
    room--;
    const [reason, message] = why;
    draft.handled.add(tenant.name);
    const release = presentRelease(world, tenant);
    if (release !== undefined) draft.restless.add(release);
    draft.actions.push({ type: "Sleep", tenant: tenant.name, shard: tenant.shard, reason, message });
  }
}

interface Candidate {
  tenant: SnapshotTenant;
  facts: SnapshotIdle;
}

/** Those that may be put to sleep at all, first who was used longest ago. */
function candidates({ world, handled }: Draft, hibernation: HibernationPolicy): Candidate[] {
  const found: Candidate[] = [];
  for (const tenant of world.idle()) {
    const { idle: facts } = tenant;
    if (!facts || tenant.move || tenant.deleting || tenant.isolated || tenant.waking || handled.has(tenant.name))
      continue;
    if (tenant.shard === undefined || world.shardByName.get(tenant.shard)?.phase === "Lost") continue;
    if (world.now < earliest(facts, hibernation)) continue;
    found.push({ tenant, facts });
  }
  return found.toSorted((a, b) => a.facts.since - b.facts.since || (a.tenant.name < b.tenant.name ? -1 : 1));
}

/** Not before that, even if its place is needed. */
function earliest(
  { awakeSince, wokenByTime, notBefore }: SnapshotIdle,
  { minAwakeSeconds }: HibernationPolicy,
): number {
  const rested =
    awakeSince === undefined || wokenByTime ? Number.NEGATIVE_INFINITY : awakeSince + minAwakeSeconds * 1000;
  return Math.max(rested, notBefore ?? Number.NEGATIVE_INFINITY);
}

function reasonFor(
  draft: Draft,
  tenant: SnapshotTenant,
  facts: SnapshotIdle,
  { afterIdleSeconds }: HibernationPolicy,
): [PlannedSleepReason, string] | undefined {
  const { world, lacking } = draft;
  const idleSeconds = (world.now - facts.since) / 1000;
  const unused = `nobody has used it for ${Math.floor(idleSeconds)} s`;
  const after = facts.afterSeconds ?? afterIdleSeconds;
  const release = presentRelease(world, tenant);
  const short = release === undefined ? 0 : (lacking.get(release) ?? 0) - world.fallingAsleepOf(release);
  // Woken again, it would find others in its place.
  const mayMakeRoom = after > 0 && short > 0 && !tenant.dedicated;
  const done = facts.wokenByTime === true && idleSeconds >= DONE_AFTER_SECONDS;
  const due = after > 0 && idleSeconds >= after;
  if (!done && !due && !mayMakeRoom) return undefined;
  // Whatever it is for, it makes room.
  if (release !== undefined && short > 0) lacking.set(release, (lacking.get(release) ?? 0) - 1);
  if (done) return ["Done", "what it was woken for is done"];
  if (due) return ["Idle", unused];
  return ["PlacesNeeded", `others of Synapse ${release} have no place, and ${unused}`];
}

/** Whether one more may be woken now. */
export function mayWake({ world, wakes }: Draft): boolean {
  return wakes < world.policy.hibernation.maxConcurrentWakes;
}
