import { PURGE_REASONS, type PurgeReason } from "../deleted-tenant.ts";
import { CHANGE_STATES } from "../change.ts";
import { FLEET_PHASES } from "../fleet.ts";
import { MOVE_OUTCOMES, MOVE_STEPS, type MoveReason } from "../move.ts";
import { SHARD_PHASES } from "../shard.ts";
import { SLEEP_REASONS, SLEEP_STEPS, WAKE_REASONS } from "../sleep.ts";
import { TENANT_PHASES } from "../tenant.ts";
import { entriesOf, type CodeEntry, type Explained, type Place } from "./entry.ts";

/** `Restored`, `DatabaseMoved`, `ShardLost` and `CpuBudgetExceeded` are events as well, and stand among them. */
export const MOVE_REASON_TEXTS = {
  Requested: { means: "Somebody asked for the move." },
  Drain: { means: "The shard is drained at somebody's request, or for the maintenance of its node." },
  Consolidation: { means: "The shard is given up, because the others have room for its tenants." },
  Upgrade: { means: "The tenant is to run another release." },
  ConfigChanged: { means: "The tenant is restarted with another configuration or other keys." },
  Balance: { means: "The shard takes more processor time than its target, or clearly more than the others." },
  Placement: { means: "The tenant's placement or isolation asks for it." },
  Dedicated: { means: "The tenant goes over between a shard and a dedicated Synapse." },
} as const satisfies Record<
  Exclude<MoveReason, "Restored" | "DatabaseMoved" | "ShardLost" | "CpuBudgetExceeded">,
  Explained
>;

/** What the model defines in one line each is not said twice. */
export const DEFINED: readonly CodeEntry[] = [
  ...defined("sleep", SLEEP_REASONS, "The tenant falls asleep"),
  ...defined("wake", WAKE_REASONS, "The tenant is woken"),
  ...defined("purge", PURGE_REASONS satisfies Record<PurgeReason, string>, "The data is removed"),
  ...defined("phase", TENANT_PHASES, "Of a tenant"),
  ...defined("phase", SHARD_PHASES, "Of a shard"),
  ...defined("phase", FLEET_PHASES, "Of the fleet"),
  ...defined("phase", MOVE_STEPS, "Step of a move"),
  ...defined("phase", MOVE_OUTCOMES, "Outcome of a move"),
  ...defined("phase", SLEEP_STEPS, "Step of falling asleep"),
  ...defined("phase", CHANGE_STATES, "State of a change"),
];

function defined(place: Place, table: Readonly<Record<string, string>>, of: string): CodeEntry[] {
  const texts = Object.entries(table).map(([code, text]) => [code, { means: `${of}: ${text}.` }] as const);
  return entriesOf(place, Object.fromEntries(texts));
}
