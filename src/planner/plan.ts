import type { Policy } from "../model/policy.ts";
import type { Action } from "./actions.ts";
import { assignTenants } from "./assign.ts";
import { balance } from "./balance.ts";
import { consolidate } from "./consolidate.ts";
import { continueConsolidation, evacuate, lostShards, shardsToEmpty } from "./drain.ts";
import { isolateTenants, separateDedicated, separateHeavy } from "./isolate.ts";
import { openDraft } from "./place.ts";
import type { Snapshot } from "./snapshot.ts";
import { putToSleep, wakeDue } from "./sleep.ts";
import { stopShards } from "./stop.ts";
import { upgradeTenants } from "./upgrade.ts";
import { grantWishes } from "./wishes.ts";
import { readWorld, worldOf, type World } from "./world.ts";
import type { ClusterIndex } from "./cluster-index.ts";

/**
 * What to do next, in order. Pure: the same snapshot, in whichever order its arrays are, gives the same plan. Earlier steps
 * take places before later ones: tenants that are down come first, tidying up comes last.
 */
export function plan(snapshot: Snapshot, policy: Policy): Action[] {
  return planFor(readWorld(snapshot, policy));
}

/** The same for a caller that keeps an index current: no more work than there is something to do. */
export function planFromIndex(index: ClusterIndex, now: number, policy: Policy): Action[] {
  return planFor(worldOf(index, now, policy));
}

function planFor(world: World): Action[] {
  const draft = openDraft(world);
  isolateTenants(draft);
  evacuate(draft, lostShards(world), "ShardLost");
  assignTenants(draft);
  evacuate(draft, shardsToEmpty(world), "Drain");
  upgradeTenants(draft);
  separateDedicated(draft);
  separateHeavy(draft);
  grantWishes(draft);
  wakeDue(draft);
  continueConsolidation(draft);
  balance(draft);
  putToSleep(draft);
  const stopped = stopShards(draft);
  consolidate(draft, stopped);
  return draft.actions;
}
