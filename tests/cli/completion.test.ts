import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";
import { reference, REFERENCE_FILE } from "../../src/cli/reference.ts";
import { runCli } from "./cli-under-test.ts";

const run = promisify(execFile);

let directory: string;
beforeEach(async () => void (directory = await mkdtemp(join(tmpdir(), "shards-completion-"))));
afterEach(() => rm(directory, { recursive: true, force: true }));

test("completes in bash", async () => {
  const { code, stdout } = await runCli(["completion", "bash"]);
  expect(code).toBe(0);
  const script = join(directory, "completion.bash");
  await writeFile(script, stdout);
  // What bash does at TAB: it sets the words and calls the function registered for the command.
  const ask = `source ${script}
    for line in "$@"; do
      read -ra COMP_WORDS <<< "\${line%|}"
      [[ "$line" == *" |" ]] && COMP_WORDS+=("")
      COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
      function_of=$(complete -p synapse-shards | sed 's/.*-F \\([^ ]*\\).*/\\1/')
      "$function_of"
      echo "$line → \${COMPREPLY[*]}"
    done`;
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
  const answer = await run("bash", ["--norc", "-uc", ask, "bash", ...lines]);
  expect(answer.stderr).toBe("");
  expect(answer.stdout).toMatchInlineSnapshot(`
    "synapse-shards ten| → tenant tenants
    synapse-shards tenant | → create update delete rm list ls get describe move backup backups restore quarantine sleep wake suspend resume undelete purge purges usage logs register-user
    synapse-shards tenant re| → restore resume register-user
    synapse-shards -o json shard d| → describe drain
    synapse-shards --data /tmp tenants l| → list ls logs
    synapse-shards tenant create clinic-a --rel| → --release
    synapse-shards tenant list -o | → table json yaml csv
    synapse-shards tenant list --output y| → yaml
    synapse-shards completion | → bash zsh fish
    synapse-shards tenant get status --sh| → --show-config
    synapse-shards status | → 
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
  expect(fish).toContain(" -a register-user -d ");
  expect(fish).toContain("-l release -r -F -d ");
});

test("the reference is that of the commands; `node src/cli/reference.ts` writes it", async () => {
  expect(await readFile(REFERENCE_FILE, "utf8")).toBe(reference());
});
