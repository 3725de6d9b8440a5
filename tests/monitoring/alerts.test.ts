import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { stringify } from "yaml";
import { ALERT_CASES, type AlertCase } from "./support/alert-cases.ts";
import { alertsIn, ofKind, renderChart, type AlertRule, type KubernetesObject } from "./support/chart.ts";
import { onPath, prometheusTool, run, skipped } from "./support/tools.ts";

const RUNBOOKS = resolve(import.meta.dirname, "../../docs/runbooks");
const OURS = { namespace: "shards", cluster_id: "synapse-shards" };
const helm = onPath("helm");
const promtool = await prometheusTool("promtool");
const why = helm === undefined ? "skipped: there is no helm on the PATH" : promtool === undefined ? skipped : "";

describe.skipIf(why !== "")(`alerts of the chart ${why}`, () => {
  let rule: KubernetesObject;
  let alerts: AlertRule[];
  beforeAll(async () => {
    rule = ofKind(await renderChart(), "PrometheusRule")[0]!;
    alerts = alertsIn(rule);
  });

  test("Prometheus loads the rules", async () => {
    const { stdout } = await promtoolOn(rule, [], "check", "rules");
    expect(stdout).toContain(`SUCCESS: ${alerts.length} rules found`);
  });

  test("each alert has a case in which it fires, keeps quiet, and ends", () => {
    expect([...new Set(ALERT_CASES.map(({ alert }) => alert))].toSorted()).toEqual(
      alerts.map(({ alert }) => alert).toSorted(),
    );
    for (const { alert, when, fires, quiet } of ALERT_CASES) {
      const first = Math.min(...fires!.at);
      expect([alert, when, quiet.some((at) => at < first)]).toEqual([alert, when, true]);
      expect([alert, when, quiet.some((at) => at > first)]).toEqual([alert, when, true]);
    }
  });

  for (const one of ALERT_CASES) {
    const about = one.when === undefined ? "" : ` (${one.when})`;
    test(`${one.alert} fires when it should, and only then${about}`, async () => {
      expect((await promtoolOn(rule, [one], "test", "rules")).stdout).toContain("SUCCESS");
    });
  }

  test("metrics of another release or namespace set off none of this release's alerts", async () => {
    const foreign = ALERT_CASES.map((one) => ({ ...one, fires: undefined, quiet: [...one.quiet, ...one.fires!.at] }));
    const quiet = foreign.filter(({ alert }) => !alert.endsWith("Down") || alert === "SynapseShardsShardDown");
    for (const other of [{ cluster_id: "other" }, { namespace: "other" }])
      expect((await promtoolOn(rule, quiet, "test", "rules", { ...OURS, ...other })).stdout).toContain("SUCCESS");
  });

  test("every alert says how bad it is and what to do", async () => {
    for (const { alert, labels, annotations, for: wait } of alerts) {
      expect(labels["severity"], alert).toMatch(/^(critical|warning|info)$/);
      expect(wait, alert).toMatch(/^\d+m$/);
      expect(alert).toMatch(/^SynapseShards/);
      expect(annotations["runbook_url"]).toBe(`docs/runbooks/${alert}.md`);
      expect(existsSync(join(RUNBOOKS, `${alert}.md`)), `a runbook of ${alert}`).toBe(true);
      const text = await readFile(join(RUNBOOKS, `${alert}.md`), "utf8");
      const headings = text.split("\n").filter((line) => line.startsWith("#"));
      expect(headings).toEqual([`# ${alert}`, "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]);
    }
  });

  test("thresholds take effect, and unknown ones are refused", async () => {
    const values = {
      monitoring: { rules: { thresholds: { tenantPendingSeconds: 4711 }, alertLabels: { team: "chat" } } },
    };
    const changed = alertsIn(ofKind(await renderChart({ values }), "PrometheusRule")[0]!);
    const pending = changed.find(({ alert }) => alert === "SynapseShardsTenantPendingTooLong")!;
    expect(pending.expr).toContain("> 4711");
    expect(pending.labels).toEqual({ severity: "warning", team: "chat" });
    const wrong = { monitoring: { rules: { thresholds: { tenantPendingSecond: 4711 } } } };
    await expect(renderChart({ values: wrong })).rejects.toThrow("tenantPendingSecond");
  });
});

/** Runs promtool on the rules, with the cases in its own notation. @throws promtool's own words */
async function promtoolOn(
  rule: KubernetesObject,
  cases: AlertCase[],
  verb: "check" | "test",
  what: "rules",
  labels: Record<string, string> = OURS,
): Promise<{ stdout: string }> {
  const directory = await mkdtemp(join(tmpdir(), "alerts-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const [rules, tests] = [join(directory, "rules.yaml"), join(directory, "tests.yaml")];
  await writeFile(rules, stringify(rule.spec));
  await writeFile(
    tests,
    stringify({ rule_files: [rules], evaluation_interval: "1m", tests: cases.map((one) => testOf(one, labels)) }),
  );
  try {
    return await run(promtool!, [verb, what, verb === "check" ? rules : tests]);
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`promtool ${verb} ${what}: ${stdout}${stderr}`, { cause: error });
  }
}

function testOf({ alert, series, quiet, fires }: AlertCase, labels: Record<string, string>) {
  const all = Object.entries(labels).map(([name, value]) => `${name}="${value}"`);
  const expected = fires && {
    exp_labels: { ...labels, ...fires.labels, severity: fires.severity },
    exp_annotations: {
      summary: fires.summary,
      description: fires.description,
      runbook_url: `docs/runbooks/${alert}.md`,
    },
  };
  return {
    interval: "1m",
    input_series: Object.entries(series).map(([name, values]) => ({
      series: name.replace("{", `{${all.join(",")},`),
      values,
    })),
    alert_rule_test: [
      ...quiet.map((at) => ({ eval_time: `${at}m`, alertname: alert, exp_alerts: [] })),
      ...(fires?.at ?? []).map((at) => ({ eval_time: `${at}m`, alertname: alert, exp_alerts: [expected] })),
    ],
  };
}
