import type { Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import type { ConfigVerdict } from "../../model/config-verdict.ts";
import { matches, parseSelector } from "../../model/labels.ts";
import type { ChangePlan, Wanted } from "../applying.ts";
import type { Client } from "../client.ts";
import { differenceOf, verdictOn, verdictWords, withItsConfig } from "../config-changes.ts";
import { confirm } from "../confirm.ts";
import { forEach } from "../each.ts";
import { CliError, EXIT } from "../errors.ts";
import { isForPeople, show } from "../format.ts";
import { readInput, timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { counted, note, print } from "../output.ts";
import { selected, selectorOption } from "../selecting.ts";
import { waitUntilGone, waitUntilRunning } from "../wait.ts";
import { HAS, tenantPath } from "./tenant-path.ts";

interface ApplyOptions extends WaitOptions {
  filename: string;
  dryRun?: true;
  prune?: true;
  selector?: string;
  yes?: true;
}

/** Reading YAML and what the API allows is much to load, which no other command needs. */
const applying = () => import("../applying.ts");

/** Requests at once: the API has others to answer. */
const AT_ONCE = 20;
const DONE = { create: "created", change: "changed", delete: "deleted", none: "unchanged" } as const;
const SIGNS = { create: "+", change: "~", delete: "-", none: " " } as const;

export function addApply(program: Command): void {
  program
    .command("apply")
    .description("create and change tenants until they are as a file says; a second time it changes nothing")
    .requiredOption("-f, --filename <file>", "tenants as YAML: one or several documents, or lists (-: stdin)")
    .option("--dry-run", "only show what would be done")
    .option(
      "--prune",
      "delete tenants that were applied before and are no longer in the file; their data is kept as usual",
    )
    .addOption(selectorOption())
    .option("-y, --yes", "do not ask before --prune deletes; needed where there is no terminal")
    .option("--wait", "wait until the tenants run as they are now")
    .addOption(timeoutOption())
    .action((options: ApplyOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        if (options.selector !== undefined && !options.prune)
          throw new CliError(EXIT.usage, "--selector says what --prune may delete, and needs it");
        const { readWanted } = await applying();
        const wanted = readWanted(await readInput(options.filename, "--filename"), nameOf(options.filename));
        const plans = await planAll(client, wanted, options);
        if (options.dryRun) return show(output, plans.map(withoutBody), () => pictureOf(plans));
        const doomed = plans.filter(({ action }) => action === "delete").map(({ name }) => name);
        if (doomed.length > 0)
          await confirm({
            question: `Delete ${doomed.join(", ")}, which the file does not name?`,
            otherwise: "nothing was changed",
            yes: options.yes,
          });
        const byName = new Map(plans.map((plan) => [plan.name, plan]));
        await forEach<TenantView | undefined, ChangePlan>([...byName.keys()], {
          begin: limited(AT_ONCE, (name) => carryOut(client, byName.get(name)!)),
          finish: async (name, done) => {
            const plan = byName.get(name)!;
            if (options.wait && plan.action === "delete") await waitUntilGone(client, "tenant", name, options.timeout);
            else if (options.wait && done)
              await waitUntilRunning(client, name, done.metadata.generation, options.timeout);
            return plan;
          },
          report: (done) => {
            if (!isForPeople(output)) show(output, done.map(withoutBody), () => "");
            else for (const { name, action } of done) print(`tenant ${name} ${DONE[action]}`);
          },
        });
      }),
    );
}

interface DiffOptions {
  filename: string;
  showConfig?: true;
}

/** diff. */
export function addDiff(program: Command): void {
  program
    .command("diff")
    .description(
      "show what apply would change, and what would become of configurations; ends with 1 where it is anything",
    )
    .requiredOption("-f, --filename <file>", "tenants as YAML, as apply takes them (-: stdin)")
    .option("--show-config", "show configurations line by line; they may hold secrets")
    .action((options: DiffOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { readWanted } = await applying();
        const wanted = readWanted(await readInput(options.filename, "--filename"), nameOf(options.filename));
        const plans = await planAll(client, wanted, { filename: options.filename });
        const look = limited(AT_ONCE, (name: string) => lookAt(client, name, plans, options));
        const looks = await Promise.all(plans.map(({ name }) => look(name)));
        const rows = plans.map((plan, index) => {
          const { verdict } = looks[index]!;
          return { ...withoutBody(plan), ...(verdict ? { verdict } : {}) };
        });
        const picture = () =>
          plans
            .flatMap((plan, index) => {
              const { verdict, difference } = looks[index]!;
              return [
                pictureOf([plan]),
                ...(difference ? [difference] : []),
                ...(verdict ? [verdictWords(verdict)] : []),
              ];
            })
            .join("\n");
        show(output, rows, picture);
        const count = plans.filter(({ action }) => action !== "none").length;
        if (count > 0) throw new CliError(EXIT.failed, `${counted(count, "tenant")} would be created or changed`);
      }),
    );
}

interface ConfigLook {
  verdict?: ConfigVerdict;
  difference?: string;
}

/** At a configuration that would be another one. */
async function lookAt(client: Client, name: string, plans: ChangePlan[], options: DiffOptions): Promise<ConfigLook> {
  const plan = plans.find((one) => one.name === name);
  const config = plan?.body?.["config"];
  if (plan?.action !== "change" || typeof config !== "string") return {};
  const verdict = await verdictOn(client, name, config);
  if (!options.showConfig) return { verdict };
  const { spec } = await withItsConfig(client, name);
  return { verdict, difference: await differenceOf(name, spec.config ?? "", config) };
}

function nameOf(file: string): string {
  return file === "-" ? "stdin" : file;
}

function withoutBody({ name, action, lines }: ChangePlan): Omit<ChangePlan, "body"> {
  return { name, action, lines };
}

/** Looks at everything before anything is changed. */
async function planAll(
  client: Client,
  wanted: Wanted[],
  options: Pick<ApplyOptions, "filename" | "prune" | "selector">,
): Promise<ChangePlan[]> {
  const { APPLIED_LABEL, planOf, refuseFormerNames } = await applying();
  const present = new Map((await selected(client, undefined)).map((tenant) => [tenant.metadata.name, tenant]));
  refuseFormerNames(wanted, [...present.values()], nameOf(options.filename));
  const read = limited(AT_ONCE, (name: string) => withItsConfig(client, name));
  const plans = await Promise.all(
    wanted.map(async (one) => {
      const known = present.get(one.name);
      return planOf(one, known && one.config !== undefined ? await read(one.name) : known);
    }),
  );
  if (!options.prune) return plans;
  const named = new Set(wanted.map(({ name }) => name));
  const selector = options.selector === undefined ? [] : parseSelector(options.selector);
  const gone = [...present.values()].filter(
    ({ metadata, spec }) =>
      !named.has(metadata.name) &&
      metadata.deletionTimestamp === undefined &&
      spec.labels?.[APPLIED_LABEL] === "yes" &&
      matches(selector, spec.labels),
  );
  if (gone.length === 0) note("nothing to prune");
  return [...plans, ...gone.map(({ metadata }) => ({ name: metadata.name, action: "delete" as const, lines: [] }))];
}

async function carryOut(client: Client, { name, action, body }: ChangePlan): Promise<TenantView | undefined> {
  switch (action) {
    case "create":
      return client.call<TenantView>("POST", "/v1/tenants", { body, has: HAS });
    case "change":
      return client.call<TenantView>("PATCH", tenantPath(name), { body, has: HAS });
    case "delete":
      await client.call("DELETE", tenantPath(name), { query: { purge: false } });
      return undefined;
    case "none":
      return undefined;
  }
}

function pictureOf(plans: readonly ChangePlan[]): string {
  return plans
    .flatMap(({ name, action, lines }) => [
      `${SIGNS[action]} tenant ${name}${action === "none" ? " (unchanged)" : ""}`,
      ...lines.map((line) => `    ${line}`),
    ])
    .join("\n");
}

/** The same function, which works for so many at once, and lets the others wait. */
function limited<T>(most: number, work: (name: string) => Promise<T>): (name: string) => Promise<T> {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async (name) => {
    if (running >= most) await new Promise<void>((go) => waiting.push(go));
    running += 1;
    try {
      return await work(name);
    } finally {
      running -= 1;
      waiting.shift()?.();
    }
  };
}
