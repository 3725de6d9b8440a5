import { z } from "zod";

const share = (least: number) => z.number().min(least).max(1);

/** What a tenant may take of its shard's processor time while it has neighbours there. docs/isolation.md, *Processor time*. */
export const CpuBudgetSchema = z.strictObject({
  /** Share of a core, for long; 0: no budget. */
  perTenant: share(0).default(0.25),
  /** The same of the time for which our own database server runs a tenant's statements, whoever its neighbours are; 0: no budget. */
  databasePerTenant: z.number().min(0).max(64).default(0.5),
  /** For single tenants, by name: `perTenant`. */
  byTenant: z.record(z.string(), share(0)).default({}),
  /** Over how long a tenant's share is averaged. */
  averageSeconds: z.number().min(5).max(3600).default(30),
  /** A tenant that has been throttled for this long gets a shard of its own, where there is room for it; 0: never. */
  isolateAfterSeconds: z.number().min(0).max(604_800).default(600),
  /** A tenant that has taken little for this long may share a shard again. */
  calmSeconds: z.number().min(60).max(604_800).default(3600),
});
export type CpuBudget = z.infer<typeof CpuBudgetSchema>;

export const DEFAULT_CPU_BUDGET: CpuBudget = CpuBudgetSchema.parse({});

/** What holds for one tenant; 0: no budget. */
export function budgetOf({ perTenant, byTenant }: CpuBudget, tenant: string): number {
  return Object.hasOwn(byTenant, tenant) ? (byTenant[tenant] ?? 0) : perTenant;
}
