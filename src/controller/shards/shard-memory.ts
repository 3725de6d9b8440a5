import { suspectOf } from "../../model/tenant-usage.ts";
import type { ShardLoad } from "../../ports/shard-control.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import type { CpuBudgets } from "./cpu-budgets.ts";

/** Parts of a shard's limit at which it is told of, and is well again. */
const HIGH = 0.85;
const LOW = 0.75;

/** How near a shard is to the limit of its memory, and which of its tenants it probably is. */
export class ShardMemory {
  readonly #context: ControllerContext;
  readonly #shard: string;
  #isHigh = false;

  constructor(context: ControllerContext, shard: string) {
    this.#context = context;
    this.#shard = shard;
  }

  async measured(memory: ShardLoad["process"]["memory"], tenants: CpuBudgets): Promise<void> {
    if (!memory || memory.limitBytes === null) return;
    const ratio = memory.bytes / memory.limitBytes;
    const wasHigh = this.#isHigh;
    this.#isHigh = ratio >= (wasHigh ? LOW : HIGH);
    const suspect = this.#isHigh ? suspectOf(tenants.holdings()) : undefined;
    this.#context.usage.setShard(this.#shard, { memoryRatio: ratio, ...(suspect ? { suspect } : {}) });
    if (!this.#isHigh || wasHigh) return;
    const who = suspect
      ? `; ${suspect.tenant} has ${Math.round(suspect.part * 100)} % of what its tenants hold in caches and had through it of late`
      : "";
    await recordEvent(this.#context, {
      type: "Warning",
      reason: "ShardMemoryHigh",
      object: `Shard/${this.#shard}`,
      message: `shard ${this.#shard} has ${Math.round(ratio * 100)} % of the memory that it may have${who}`,
    });
  }

  /** The shard is not seen any more. */
  close(): void {
    this.#context.usage.forgetShard(this.#shard);
  }
}
