import { CONTROLLER_PREFIX } from "../metrics.ts";
import { kindOf } from "../../model/history.ts";

/** What is asked of Prometheus for one series of the plots. */
export interface SeriesQuery {
  series: string;
  query: string;
}

export interface Asked {
  /** Of one step, in seconds. */
  stepSeconds: number;
  /** What tells this cluster's series from others'. */
  labels: Readonly<Record<string, string>>;
  /** Default: the cluster as a whole. */
  shard?: string;
  maxTenantsPerShard: number;
}

/** A step of more than a minute is looked at so often. */
const LOOKS_PER_STEP = 12;
const SHORTEST_SECONDS = 60;

/**
 * The series of the controller's own history, made of its metrics. Several replicas may be scraped, of which one leads: `max by` is right at any
 * time. Each value is of the step that ends where it is evaluated.
 */
export function queriesOf({ stepSeconds, labels, shard, maxTenantsPerShard }: Asked): SeriesQuery[] {
  const metric = (name: string, more: readonly string[] = []): string => {
    const matchers = [...Object.entries(labels).map(([label, value]) => `${label}=${quoted(value)}`), ...more];
    return matchers.length === 0 ? name : `${name}{${matchers.join(",")}}`;
  };
  const own = (rest: string, ...more: string[]) => metric(`${CONTROLLER_PREFIX}${rest}`, more);
  const memory = (...more: string[]) => metric("process_resident_memory_bytes", [`component="shard"`, ...more]);
  // What there is none of has no series, but is known to be none while a controller that leads says what there is.
  const orNone = (query: string) => `(${query} or 0 * (max(${own("leader")}) == 1))`;
  const shards = orNone(`sum(max by (image_tag, phase) (${own("shards")}))`);
  const tenants = (...phase: string[]) =>
    orNone(`sum(max by (image_tag, phase, reason, hosting) (${own("tenants", ...phase)}))`);
  // A minute has one scrape or two, of which `increase` makes nothing, or fractions. A counter that begins again loses that minute.
  const grown = (counter: string, sum = "sum") =>
    stepSeconds > SHORTEST_SECONDS
      ? `${sum} (increase(${counter}[${stepSeconds}s]))`
      : `clamp_min(${sum} (${counter}) - ${sum} (${counter} offset ${stepSeconds}s), 0)`;
  const gauges: Record<string, string> =
    shard === undefined
      ? {
          running: tenants(`phase="Running"`),
          asleep: tenants(`phase="Asleep"`),
          suspended: tenants(`phase="Suspended"`),
          failed: tenants(`phase="Failed"`),
          onTheWay: tenants(`phase!~"Running|Asleep|Suspended|Failed"`),
          shards,
          places: `${shards} * ${maxTenantsPerShard}`,
          placesTaken: orNone(`sum(max by (shard) (${own("shard_tenants")}))`),
          load: orNone(`sum(max by (shard) (${own("shard_load_ratio")}))`),
          busiest: orNone(`max(${own("shard_load_ratio")})`),
          memory: `sum(${memory()})`,
        }
      : {
          load: `max(${own("shard_load_ratio", `shard=${quoted(shard)}`)})`,
          memory: `max(${memory(`shard=${quoted(shard)}`)})`,
        };
  const counts: Record<string, string> =
    shard === undefined
      ? {
          moves: grown(own("moves_total")),
          movesFailed: grown(own("moves_total", `outcome!="Succeeded"`)),
          // The upper bound of the bucket in which the longest is: more is not in a histogram.
          blackout: `histogram_quantile(1, ${grown(own("move_blackout_seconds_bucket"), "sum by (le)")})`,
          wakes: grown(own("wakes_total")),
          sleeps: grown(own("sleeps_total")),
        }
      : {};
  return [
    ...Object.entries(gauges).map(([series, query]) => ({ series, query: overStep(series, query, stepSeconds) })),
    ...Object.entries(counts).map(([series, query]) => ({ series, query })),
  ];
}

/** What holds for a step of more than a minute is not what its last moment says. */
function overStep(series: string, query: string, stepSeconds: number): string {
  if (stepSeconds <= SHORTEST_SECONDS) return query;
  const look = Math.max(SHORTEST_SECONDS, Math.round(stepSeconds / LOOKS_PER_STEP));
  return `${kindOf(series) === "max" ? "max" : "avg"}_over_time((${query})[${stepSeconds}s:${look}s])`;
}

/** As a string of PromQL, which escapes as JSON does. */
function quoted(text: string): string {
  return JSON.stringify(text);
}
