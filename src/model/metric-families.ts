import { z } from "zod";

/** A name is Synapse's or Prometheus' (with or without `_total`); the beginning of names ends with `*`. */
const FAMILY = /^(all|[a-zA-Z_][a-zA-Z0-9_]{0,126}\*?)$/;
const MOST = 100;

/** Families of metrics that shards export of a tenant, besides the few that they export of each; docs/metrics.md, *Families*. */
export const MetricFamiliesSchema = z
  .array(
    z.string().regex(FAMILY, "all, a family such as synapse_pushers, or the beginning of some such as synapse_util_*"),
  )
  .max(MOST);

/** Those of the cluster and the tenant's own; none: an earlier version of shards knows no such setting. */
export function familiesOf(...lists: (readonly string[] | undefined)[]): { metrics?: string[] } {
  const metrics = [...new Set(lists.flatMap((list) => list ?? []))].toSorted();
  return metrics.length === 0 ? {} : { metrics };
}
