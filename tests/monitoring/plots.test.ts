import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { stringify } from "yaml";
import { queriesOf } from "../../src/controller/history/prometheus-queries.ts";
import { ownMetrics } from "../../src/monitoring/reference.ts";
import { SHARD_METRICS } from "../../src/monitoring/shard-metrics.ts";
import { prometheusTool, run, skipped } from "./support/tools.ts";

const promtool = await prometheusTool("promtool");
const OURS = { cluster_id: "clinics" };
const P = "synapse_shards_controller_";

function asked(stepSeconds: number, shard?: string) {
  return queriesOf({
    stepSeconds,
    labels: OURS,
    maxTenantsPerShard: 25,
    ...(shard === undefined ? {} : { shard }),
  });
}

/** Two replicas, of which the second follows: it serves nothing of tenants and shards. */
const SERIES: Record<string, string> = {
  [`${P}leader{cluster_id="clinics",pod="a"}`]: "1x130",
  [`${P}leader{cluster_id="clinics",pod="b"}`]: "0x130",
  [`${P}tenants{cluster_id="clinics",pod="a",image_tag="1",phase="Running",reason="",hosting="shard"}`]: "5x130",
  [`${P}tenants{cluster_id="clinics",pod="a",image_tag="2",phase="Running",reason="",hosting="shard"}`]: "2x130",
  [`${P}tenants{cluster_id="clinics",pod="a",image_tag="2",phase="Asleep",reason="",hosting="shard"}`]: "4x130",
  [`${P}tenants{cluster_id="clinics",pod="a",image_tag="2",phase="Moving",reason="",hosting="shard"}`]: "1x130",
  [`${P}tenants{cluster_id="other",pod="a",image_tag="1",phase="Running",reason="",hosting="shard"}`]: "99x130",
  [`${P}shards{cluster_id="clinics",pod="a",image_tag="1",phase="Ready"}`]: "2x130",
  [`${P}shards{cluster_id="clinics",pod="b",image_tag="1",phase="Ready"}`]: "2x130",
  [`${P}shard_tenants{cluster_id="clinics",pod="a",shard="1-0",image_tag="1"}`]: "3x130",
  [`${P}shard_tenants{cluster_id="clinics",pod="a",shard="1-1",image_tag="1"}`]: "5x130",
  [`${P}shard_load_ratio{cluster_id="clinics",pod="a",shard="1-0",image_tag="1"}`]: "0.25x130",
  [`${P}shard_load_ratio{cluster_id="clinics",pod="a",shard="1-1",image_tag="1"}`]: "0.5x130",
  [`process_resident_memory_bytes{cluster_id="clinics",component="shard",shard="1-0"}`]: "100x130",
  [`process_resident_memory_bytes{cluster_id="clinics",component="controller"}`]: "7x130",
  [`${P}moves_total{cluster_id="clinics",pod="a",reason="Requested",outcome="Succeeded"}`]: "0x100 2x30",
  [`${P}moves_total{cluster_id="clinics",pod="a",reason="Requested",outcome="RolledBack"}`]: "0x100 1x30",
  [`${P}move_blackout_seconds_bucket{cluster_id="clinics",pod="a",le="0.5"}`]: "0x100 1x30",
  [`${P}move_blackout_seconds_bucket{cluster_id="clinics",pod="a",le="1"}`]: "0x100 3x30",
  [`${P}move_blackout_seconds_bucket{cluster_id="clinics",pod="a",le="+Inf"}`]: "0x100 3x30",
  [`${P}wakes_total{cluster_id="clinics",pod="a",reason="request"}`]: "0+1x130",
  // Started again in between.
  [`${P}sleeps_total{cluster_id="clinics",pod="a",reason="Idle"}`]: "9x100 0x30",
};

/** What Prometheus makes of the queries at a minute. */
const EXPECTED: Record<string, number | undefined> = {
  running: 7,
  asleep: 4,
  suspended: 0,
  failed: 0,
  onTheWay: 1,
  shards: 2,
  places: 50,
  placesTaken: 8,
  load: 0.75,
  busiest: 0.5,
  memory: 100,
  moves: 3,
  movesFailed: 1,
  blackout: 1,
  wakes: 1,
  sleeps: 0,
};

describe("the queries of the plots", () => {
  test("ask for metrics that there are", () => {
    const { controller } = ownMetrics();
    const known = new Set([...controller, ...SHARD_METRICS].map(({ name }) => name));
    for (const { query } of [...asked(60), ...asked(86_400), ...asked(300, "1-0")])
      for (const [name] of query.matchAll(/\b(?:synapse_shards|process|multi_synapse)_\w+/g))
        expect(known, query).toContain(name.replace(/_bucket$/, ""));
  });

  test.skipIf(promtool === undefined)(
    `say of a cluster what its own history would ${promtool === undefined ? skipped : ""}`,
    async () => {
      const directory = await mkdtemp(join(tmpdir(), "plots-"));
      onTestFinished(() => rm(directory, { recursive: true, force: true }));
      const cases = [...asked(60), ...asked(300)].flatMap(({ series, query }) => {
        // Over more than a minute, a count is extrapolated.
        if (query.includes("increase(")) return [];
        const value = EXPECTED[series];
        const samples = value === undefined ? [] : [{ labels: "{}", value }];
        return [{ expr: query, eval_time: "101m", exp_samples: samples }];
      });
      expect(cases.length).toBeGreaterThan(20);
      const ofShard = asked(60, "1-0").map(({ series, query }) => ({
        expr: query,
        eval_time: "101m",
        exp_samples: [{ labels: "{}", value: series === "load" ? 0.25 : 100 }],
      }));
      const input_series = Object.entries(SERIES).map(([series, values]) => ({ series, values }));
      const file = join(directory, "tests.yaml");
      const tests = [{ interval: "1m", input_series, promql_expr_test: [...cases, ...ofShard] }];
      await writeFile(file, stringify({ rule_files: [], evaluation_interval: "1m", tests }));
      const { stdout } = await run(promtool!, ["test", "rules", file]).catch((error: unknown) => {
        const { stdout: said = "", stderr = "" } = error as { stdout?: string; stderr?: string };
        throw new Error(`promtool: ${said}${stderr}`);
      });
      expect(stdout).toContain("SUCCESS");
    },
  );
});
