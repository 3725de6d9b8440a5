import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import type { Client } from "../client.ts";
import { askFor, configOf, differenceOf, verdictOn, verdictWords } from "../config-changes.ts";
import { confirm } from "../confirm.ts";
import { CliError, EXIT } from "../errors.ts";
import { show } from "../format.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { note } from "../output.ts";
import { tenantDetails } from "../rows.ts";
import { waitUntilRunning } from "../wait.ts";

interface EditOptions extends WaitOptions {
  yes?: boolean;
}

/** edit. */
export function addEdit(tenant: Command): void {
  tenant
    .command("edit")
    .description("edit a tenant's own configuration: it is checked, and shown as a difference, before it is asked for")
    .argument("<name>", "name of the tenant")
    .option("-y, --yes", "do not ask before it is asked for")
    .option("--wait", "wait until the tenant runs with it")
    .addOption(timeoutOption())
    .addHelpText("after", "\nThe editor is $VISUAL, else $EDITOR, else vi.")
    .action((name: string, options: EditOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const before = await configOf(client, name);
        const directory = await mkdtemp(join(tmpdir(), "synapse-shards-edit-"));
        const file = join(directory, `${name}.yaml`);
        await writeFile(file, before, { mode: 0o600 });
        let done = false;
        try {
          const after = await edited(client, name, file, before);
          if (after === before) {
            done = true;
            return note("nothing was changed");
          }
          note(await differenceOf(name, before, after));
          const question = `Ask for this configuration of tenant ${name}?`;
          await confirm({
            question,
            otherwise: "nothing was changed",
            why: "it may restart the tenant",
            yes: options.yes,
          });
          const updated = await askFor(client, name, before, after);
          done = true;
          const { generation } = updated.metadata;
          const now = options.wait ? await waitUntilRunning(client, name, generation, options.timeout) : updated;
          show(output, tenantDetails(now), () => `tenant ${name} ${options.wait ? "runs as updated" : "updated"}`);
        } finally {
          if (done) await rm(directory, { recursive: true, force: true });
          else note(`what was edited is in ${file}`);
        }
      }),
    );
}

/** As often as its author wants to correct what is refused. @returns what nobody refuses */
async function edited(client: Client, name: string, file: string, before: string): Promise<string> {
  for (;;) {
    await runEditor(file);
    const text = await readFile(file, "utf8");
    const problem = text === before ? undefined : await problemOf(client, name, text);
    if (problem === undefined) return text;
    note(problem);
    if (process.stdin.isTTY !== true) throw new CliError(EXIT.failed, "nothing was changed");
    await confirm({ question: "Edit it again?", otherwise: "nothing was changed", why: "", yes: false });
  }
}

/** Why it would be refused; undefined: it would not, as far as anybody can tell. */
async function problemOf(client: Client, name: string, text: string): Promise<string | undefined> {
  // A library that takes long to load.
  const { overridesProblem } = await import("../overrides-problem.ts");
  const problem = overridesProblem(text);
  if (problem !== undefined) return `line ${problem.line}, column ${problem.column}: ${problem.words}`;
  const verdict = await verdictOn(client, name, text);
  if (verdict.verdict === "Refused") return verdictWords(verdict);
  note(verdictWords(verdict));
  return undefined;
}

/** A setting such as `code --wait` is a command with arguments, which is the shell's to read. @throws CliError */
async function runEditor(file: string): Promise<void> {
  const editor = process.env["VISUAL"] || process.env["EDITOR"] || "vi";
  const child = spawn("sh", ["-c", `${editor} "$1"`, "editor", file], { stdio: "inherit" });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code !== 0) throw new CliError(EXIT.failed, `the editor (${editor}) ended with ${code}: nothing was changed`);
}
