import type { Stall } from "../../ports/shard-control.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { timeText } from "../../model/clock.ts";

/** A tenant that stopped its shard's reactor this often gets a shard of its own. Once may be chance, or a load that comes once. */
const STALLS_TO_QUARANTINE = 2;
/** A stall that lies further back is forgotten. */
const REMEMBERED_MS = 30 * 24 * 3_600_000;
/** A shard tells of its last 20. */
const IDS_KEPT = 20;

/**
 * Takes down what a shard tells of stalls of its former processes (docs/control-api.md, *Stalls*), each once, and quarantines the tenant whose
 * code it was again.
 */
export async function recordStalls(context: ControllerContext, shard: string, stalls: readonly Stall[]): Promise<void> {
  for (const stall of stalls) if (stall.tenant !== null) await recordStall(context, shard, stall, stall.tenant);
}

async function recordStall(context: ControllerContext, shard: string, stall: Stall, name: string): Promise<void> {
  const at = stall.at * 1000;
  const where = stall.stack[0] ?? "an unknown place";
  let known = true;
  let quarantined = false;
  await modify(context.store, "Tenant", name, ({ status }) => {
    const before = status.stalls;
    known = before?.ids.includes(stall.id) ?? false;
    if (known) return false;
    const recent = before !== undefined && at - Date.parse(before.lastAt) < REMEMBERED_MS;
    const count = (recent ? before.count : 0) + 1;
    status.stalls = { count, ids: [...(before?.ids ?? []), stall.id].slice(-IDS_KEPT), lastAt: timeText(at), where };
    quarantined = count >= STALLS_TO_QUARANTINE && status.quarantine === undefined;
    if (quarantined) {
      const message = `its code stopped a whole shard ${count} times, last in ${where}`;
      status.quarantine = { since: timeText(context.clock.now()), message };
    }
    return true;
  });
  if (known) return;
  const object = `Tenant/${name}`;
  const stopped = `code of ${name} held up shard ${shard} for ${Math.round(stall.seconds)} s, in ${where}; the shard was ended and started again`;
  await recordEvent(context, { type: "Warning", reason: "ShardStalled", object, message: stopped });
  context.metrics.shardStalls.inc(shard);
  if (!quarantined) return;
  const message = `${name} is quarantined: it runs on a shard of its own until it is released (tenant quarantine ${name} --lift)`;
  await recordEvent(context, { type: "Warning", reason: "Quarantined", object, message });
}
