import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Some of them start processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

const BEFORE = "enable_registration: false\nsmtp_host: mail.example\n";

let cluster: ClusterUnderTest;
/** Where the command makes its own. */
let temporary: string;
beforeEach(async () => {
  cluster = await startClusterUnderTest();
  cluster.service.addShard("1.163.2-0");
  cluster.service.run(cluster.service.addTenant("clinic-a", {}, BEFORE), "1.163.2-0");
  temporary = mkdtempSync(join(tmpdir(), "edit-"));
});
afterEach(async () => {
  await cluster.close();
  rmSync(temporary, { recursive: true });
});

const config = () => cluster.service.tenants.get("clinic-a")?.spec.config;

describe("tenant edit", () => {
  /** @param script of the shell, with the file as its first argument */
  const edit = async (script: string, ...args: string[]) => {
    const editor = await cluster.write("editor.sh", `#!/bin/sh\n${script}\n`);
    const env = { EDITOR: `sh ${editor}`, TMPDIR: temporary };
    return cluster.cli(["tenant", "edit", "clinic-a", ...args], { env });
  };

  test("checks what was edited, shows it as a difference, and asks for it", async () => {
    cluster.service.configWarnings = ["enable_metrics: has no effect here"];
    const done = await edit('echo "enable_metrics: true" >> "$1"; ls -l "$1" | cut -c1-10 >&2', "--yes");
    expect(done).toMatchObject({ code: 0, stdout: "tenant clinic-a updated\n" });
    expect(done.stderr).toBe(
      "-rw-------\nthe configuration would be accepted\nwarning: enable_metrics: has no effect here\n" +
        "--- clinic-a (now)\n+++ clinic-a (then)\n@@ -1,2 +1,3 @@\n enable_registration: false\n smtp_host: mail.example\n+enable_metrics: true\n",
    );
    expect(config()).toBe(`${BEFORE}enable_metrics: true\n`);
  });

  test("changes nothing where nothing was edited, the editor fails, or what is edited is refused or not asked for", async () => {
    expect(await edit("true")).toMatchObject({ code: 0, stderr: "nothing was changed\n" });
    expect((await edit("exit 3")).stderr).toContain("ended with 3: nothing was changed");
    const refused = await edit('echo "listeners: []" >> "$1"', "--yes");
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain("would be refused: listeners is not a tenant's to set (OptionNotAllowed)");
    // It is not lost.
    expect(refused.stderr).toMatch(/what was edited is in .*clinic-a\.yaml/);
    const notYaml = await edit('echo "a: [" >> "$1"', "--yes");
    expect(notYaml).toMatchObject({ code: 1, stderr: expect.stringMatching(/^line 4, column 1: not YAML/) as string });
    const unasked = await edit('echo "enable_metrics: true" >> "$1"');
    expect(unasked).toMatchObject({ code: 2, stderr: expect.stringContaining("give --yes") as string });
    expect(config()).toBe(BEFORE);
  });
});

test("tenant update --dry-run says what would become of a configuration, and changes nothing", async () => {
  const fine = await cluster.write("fine.yaml", "enable_metrics: true\n");
  const wrong = await cluster.write("wrong.yaml", "listeners: []\n");
  expect(await cluster.cli(["tenant", "update", "clinic-a", "--config", fine, "--dry-run"])).toMatchObject({
    code: 0,
    stdout: "tenant clinic-a: the configuration would be accepted\n",
  });
  const refused = await cluster.cli(["tenant", "update", "clinic-a", "--config", wrong, "--dry-run", "-o", "json"]);
  expect(refused.code).toBe(1);
  expect(JSON.parse(refused.stdout)).toMatchObject({
    name: "clinic-a",
    verdict: "Refused",
    reason: "OptionNotAllowed",
  });
  expect((await cluster.cli(["tenant", "update", "clinic-a", "--release", "1.164.0", "--dry-run"])).code).toBe(2);
  expect(config()).toBe(BEFORE);
});

test("diff shows what apply would change, judges configurations, and shows their values only where it is told to", async () => {
  const file = await cluster.write(
    "tenants.yaml",
    "- name: clinic-a\n  config: { enable_registration: false, smtp_host: other.example }\n- name: clinic-b\n",
  );
  const plain = await cluster.cli(["diff", "-f", file]);
  expect(plain).toMatchObject({ code: 1, stderr: "error: 2 tenants would be created or changed\n" });
  expect(plain.stdout).toContain("~ tenant clinic-a\n");
  expect(plain.stdout).toContain("    config smtp_host: changed\nthe configuration would be accepted\n");
  expect(plain.stdout).toContain("+ tenant clinic-b\n");
  expect(plain.stdout).not.toContain("other.example");
  const whole = await cluster.cli(["diff", "-f", file, "--show-config"]);
  expect(whole.stdout).toContain("-smtp_host: mail.example\n+smtp_host: other.example\n");
  const rows = JSON.parse((await cluster.cli(["diff", "-f", file, "-o", "json"])).stdout) as object[];
  expect(rows).toMatchObject([
    { name: "clinic-a", action: "change", verdict: { verdict: "Accepted" } },
    { name: "clinic-b", action: "create" },
  ]);
  expect(config()).toBe(BEFORE);
  await cluster.printed("apply", "-f", file);
  expect(await cluster.cli(["diff", "-f", file])).toMatchObject({ code: 0, stderr: "" });
});
