import { InvalidArgumentError, Option, type Command } from "commander";
import type { NamedPlan, TenantQuotas } from "../../controller/service/cluster-service.ts";
import type { Quotas } from "../../model/quota.ts";
import { MEASURED, parseBytes, type MeasuredQuota } from "../../model/quota-names.ts";
import { withClient } from "../options.ts";
import { isForPeople, show, showList } from "../format.ts";
import { age, print, table } from "../output.ts";
import { tenantPath } from "./tenant-path.ts";
import { mebibytes } from "../../model/bytes.ts";

const NAMES = [...MEASURED, "uploadBytes", "requestsInFlight", "cpuShare", "remoteRoomComplexity"] as const;

export function planOption(words: string): Option {
  return new Option("--plan <plan>", words);
}

export function quotaOption(): Option {
  return new Option(
    "--quota <limit>",
    `a quota of its own, QUOTA=NUMBER, before its plan's: ${NAMES.join(", ")}, or soft.… of the first four; sizes such as 10G; can be given several times`,
  ).argParser(parseQuota);
}

function parseQuota(text: string, before: Quotas | undefined): Quotas {
  const [, soft, name = "", given = ""] = /^(soft\.)?([A-Za-z]+)=(.+)$/.exec(text) ?? [];
  const allowed: readonly string[] = soft === undefined ? NAMES : MEASURED;
  if (!allowed.includes(name))
    throw new InvalidArgumentError(
      `it is QUOTA=NUMBER, with one of ${[...NAMES, ...MEASURED.map((quota) => `soft.${quota}`)].join(", ")}`,
    );
  const value = (name.endsWith("Bytes") ? parseBytes(given) : undefined) ?? Number(given);
  // What is allowed of each, the API says.
  if (!Number.isFinite(value)) throw new InvalidArgumentError(`${name}: ${JSON.stringify(given)} is no number`);
  return soft === undefined ? { ...before, [name]: value } : { ...before, soft: { ...before?.soft, [name]: value } };
}

/** `tenant quotas`. */
export function addQuotas(tenant: Command): void {
  tenant
    .command("quotas")
    .description("show a tenant's quotas, and what there is of each")
    .argument("<name>", "name of the tenant")
    .action((name: string, _options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const found = await client.call<TenantQuotas>("GET", `${tenantPath(name)}/quotas`, { has: ["quotas"] });
        if (!isForPeople(output)) return show(output, found, () => "");
        const plan = found.plan === undefined ? "no plan" : `plan ${found.plan}`;
        const at = found.at === undefined ? "" : `; measured ${age(found.at)} ago`;
        if (found.quotas.length === 0) return print(`${name} has no quotas (${plan})`);
        const rows = found.quotas.map(({ quota, used, soft, hard, state }) => [
          quota,
          text(quota, used),
          text(quota, soft),
          text(quota, hard),
          state === undefined ? "" : STATES[state],
        ]);
        print(`${name}: ${plan}${at}\n${table(["QUOTA", "USED", "SOFT", "HARD", ""], rows)}`);
      }),
    );
}

const STATES = { Soft: "soft limit reached", Hard: "hard limit reached" } as const;

/** `plan list`. */
export function addPlan(program: Command): void {
  const plan = program.command("plan").alias("plans").description("plans: named sets of quotas in the configuration");
  plan
    .command("list")
    .alias("ls")
    .description("list all plans")
    .action((_options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { items } = await client.call<{ items: NamedPlan[] }>("GET", "/v1/plans", { has: ["items"] });
        const { softLimit } = await import("../../model/quota.ts");
        showList(output, items, "The configuration has no plans.", () =>
          table(
            ["PLAN", "TENANTS", "QUOTAS"],
            items.map(({ name, tenants, quotas }) => [name, String(tenants), words(quotas, softLimit)]),
          ),
        );
      }),
    );
}

function words(quotas: Quotas, softLimit: (of: Quotas, quota: MeasuredQuota) => number | undefined): string {
  return NAMES.flatMap((quota) => {
    const hard = quotas[quota];
    if (hard !== undefined) return [`${quota} ${text(quota, hard)}`];
    const soft = isMeasured(quota) ? softLimit(quotas, quota) : undefined;
    return soft === undefined ? [] : [`${quota} ${text(quota, soft)} (soft)`];
  }).join(", ");
}

function isMeasured(quota: string): quota is MeasuredQuota {
  return (MEASURED as readonly string[]).includes(quota);
}

function text(quota: string, value: number | undefined): string {
  if (value === undefined) return "-";
  return quota.endsWith("Bytes") ? mebibytes(value) : String(Math.round(value * 100) / 100);
}
