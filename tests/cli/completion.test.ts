import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { reference, REFERENCE_FILE } from "../../src/cli/reference.ts";
import { MAIN, runCli, startClusterUnderTest } from "./cli-under-test.ts";

const run = promisify(execFile);

let directory: string;
beforeEach(async () => void (directory = await mkdtemp(join(tmpdir(), "shards-completion-"))));
afterEach(() => rm(directory, { recursive: true, force: true }));

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

/** Asks as bash does at TAB: it sets the words and calls the function registered for the command. */
async function completing(env: Record<string, string | undefined> = process.env) {
  const { code, stdout } = await runCli(["completion", "bash"]);
  expect(code).toBe(0);
  const script = join(directory, "completion.bash");
  await writeFile(script, stdout);
  const ask = `source ${script}
    for line in "$@"; do
      read -ra COMP_WORDS <<< "\${line%|}"
      [[ "$line" == *" |" ]] && COMP_WORDS+=("")
      COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
      function_of=$(complete -p synapse-shards | sed 's/.*-F \\([^ ]*\\).*/\\1/')
      "$function_of"
      echo "$line → \${COMPREPLY[*]}"
    done`;
  return async (lines: string[]): Promise<string> => {
    const answer = await run("bash", ["--norc", "-uc", ask, "bash", ...lines], { env });
    expect(answer.stderr).toBe("");
    return answer.stdout;
  };
}

test("completes in bash", async () => {
  const complete = await completing();
  const lines = [
    "synapse-shards ten|",
    "synapse-shards tenant |",
    "synapse-shards tenant re|",
    "synapse-shards -o json shard d|",
    "synapse-shards --data /tmp tenants l|",
    "synapse-shards tenant create clinic-a --rel|",
    "synapse-shards tenant list -o |",
    "synapse-shards tenant list --output y|",
    "synapse-shards completion |",
    "synapse-shards tenant get status --sh|",
    "synapse-shards status |",
  ];
  expect(await complete(lines)).toMatchInlineSnapshot(`
    "synapse-shards ten| → tenant tenants
    synapse-shards tenant | → create update delete rm list ls get describe check dns move move-database rename backup backups restore inspect inspections import export quarantine sleep wake suspend resume undelete purge purges usage quotas logs register-user users appservice host authentication admin-access edit
    synapse-shards tenant re| → rename restore resume register-user
    synapse-shards -o json shard d| → describe drain
    synapse-shards --data /tmp tenants l| → list ls logs
    synapse-shards tenant create clinic-a --rel| → --release
    synapse-shards tenant list -o | → table wide name json yaml csv jsonpath= template=
    synapse-shards tenant list --output y| → yaml
    synapse-shards completion | → bash zsh fish
    synapse-shards tenant get status --sh| → --show-config
    synapse-shards status | → 
    "
  `);
});

test("completes the names of tenants, shards and contexts from the cluster that the line names", async () => {
  const cluster = await startClusterUnderTest();
  onTestFinished(() => cluster.close());
  for (const name of ["clinic-a", "clinic-b", "school"]) cluster.service.addTenant(name);
  cluster.service.addShard("1.163.2-0");
  // As it is on the PATH.
  const program = join(directory, "synapse-shards");
  await writeFile(program, `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`, { mode: 0o755 });
  const env = {
    XDG_CONFIG_HOME: join(directory, "config"),
    PATH: `${directory}:${process.env["PATH"]}`,
    HOME: directory,
  };
  await runCli(["context", "add", "berlin", "--data", cluster.data], { env });
  await runCli(["context", "use", "-"], { env });
  const complete = await completing(env);
  expect(
    await complete([
      `synapse-shards --data ${cluster.data} tenant get cl|`,
      "synapse-shards --context berlin shard drain |",
      "synapse-shards tenant delete --context berlin school |",
      "synapse-shards tenant list --context |",
      "synapse-shards context use |",
      "synapse-shards --data /nothing tenant get |",
      "synapse-shards --context berlin tenant create cl|",
    ]).then((answer) => answer.replaceAll(cluster.data, "DATA")),
  ).toMatchInlineSnapshot(`
    "synapse-shards --data DATA tenant get cl| → clinic-a clinic-b
    synapse-shards --context berlin shard drain | → 1.163.2-0
    synapse-shards tenant delete --context berlin school | → clinic-a clinic-b school
    synapse-shards tenant list --context | → berlin
    synapse-shards context use | → berlin
    synapse-shards --data /nothing tenant get | → 
    synapse-shards --context berlin tenant create cl| → 
    "
  `);
});

test("completions for zsh and fish have all commands and balanced quotes", async () => {
  const zsh = (await runCli(["completion", "zsh"])).stdout;
  expect(zsh).toMatch(/^autoload -U \+X bashcompinit && bashcompinit\n/);
  const fish = (await runCli(["completion", "fish"])).stdout;
  for (const line of fish.trim().split("\n")) {
    expect([line, line.replaceAll("\\'", "").split("'").length % 2]).toEqual([line, 1]);
  }
  expect(fish).toContain("-a '(synapse-shards __names code 2>/dev/null)'");
  expect(fish).toContain(" -a register-user -d ");
  expect(fish).toContain("-l release -r -F -d ");
});

test("the reference is that of the commands; `node src/cli/reference.ts` writes it", async () => {
  expect(await readFile(REFERENCE_FILE, "utf8")).toBe(reference());
});
