import { InvalidArgumentError, Option, type Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import type { Isolation, Placement } from "../../model/placement.ts";
import type { Quotas } from "../../model/quota.ts";
import type { TenantHibernation } from "../../model/sleep.ts";
import type { Client } from "../client.ts";
import { copiedConfig, verdictOn, verdictWords } from "../config-changes.ts";
import { actOn, choose, takesTenants, type Choice, type ChoiceOptions } from "../bulk.ts";
import { confirm } from "../confirm.ts";
import { CliError, EXIT } from "../errors.ts";
import { labelOption, labelsToSet, type LabelChanges } from "../selecting.ts";
import { readOverrides, timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { isForPeople, show, type Format } from "../format.ts";
import { note, print } from "../output.ts";
import { tenantDetails } from "../rows.ts";
import { waitUntilAlone, waitUntilGone, waitUntilRunning } from "../wait.ts";
import { dnsOfTenant, dnsWords, waitUntilReachable } from "../onboarding.ts";
import { planOption, quotaOption } from "./quotas.ts";
import { authenticated, sectionOf } from "./tenant-authentication.ts";
import { HAS, tenantPath } from "./tenant-path.ts";
import { givenPassword, register, registered } from "./tenant-register-user.ts";

interface SpecOptions extends WaitOptions {
  domain?: string;
  host?: string;
  admin?: string;
  adminPasswordStdin?: true;
  serverName?: string;
  release?: string;
  config?: string;
  revertConfig?: true;
  dryRun?: true;
  hibernation?: TenantHibernation;
  placement?: Placement;
  isolation?: Isolation;
  label?: LabelChanges;
  /** False where those of its own are to be removed. */
  quotas?: boolean;
  plan?: string;
  quota?: Quotas;
  fromTemplate?: string;
  metrics?: string[];
  mas?: string;
}

interface DeleteOptions extends WaitOptions, ChoiceOptions {
  purge?: boolean;
}

/** create, update, delete. */
export function addTenantChanges(tenant: Command): void {
  tenant
    .command("create")
    .description("create a tenant")
    .argument("<name>", 'name of the tenant: 1 to 63 of a-z, 0-9 and "-"')
    .option("--server-name <name>", "its Matrix server name, which can never be changed (default: NAME.<baseDomain>)")
    .option("--domain <domain>", "instead: its server name, with the homeserver at a host of its own in it, by https")
    .option("--host <host>", "with --domain: that host (default: matrix.DOMAIN)")
    .option(
      "--release <version>",
      "its release of Synapse, e.g. 1.163.2, or \"fleet\" to follow the fleet's (default: the cluster's)",
    )
    .option("--config <file>", "settings of its own for homeserver.yaml, as YAML (-: stdin)")
    .addOption(hibernationOption())
    .addOption(placementOption())
    .addOption(isolationOption())
    .addOption(labelOption("a label KEY=VALUE; can be given several times"))
    .addOption(planOption("the plan of the configuration whose quotas it has"))
    .addOption(quotaOption())
    .option(
      "--from-template <tenant>",
      "take release, configuration, placement, isolation, sleep, labels, plan and quotas of this tenant, where no option says " +
        "otherwise; not its keys, server name, hosts, database, bucket, bridges and data",
    )
    .addOption(
      new Option(
        "--mas <url>",
        "its accounts are kept by a Matrix Authentication Service at this URL; prints what belongs into that one's configuration",
      ).conflicts("admin"),
    )
    .option("--admin <user>", "register this first administrator when it runs; the password is made, and printed once")
    .option("--admin-password-stdin", "with --admin: the password is the first line of stdin")
    .option("--wait", "wait until it runs; with --domain, until clients and other servers find it")
    .addOption(timeoutOption())
    .action((name: string, options: SpecOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { domain, host, serverName, release, quota: quotas } = options;
        const { hibernation, placement, isolation, plan, fromTemplate } = options;
        const wishes = { hibernation, placement, isolation, plan, fromTemplate };
        const password = await adminPassword(options);
        const labels = labelsToSet(options.label);
        const given = options.config === undefined ? undefined : await readOverrides(options.config);
        // The service's options are written into it here, and so it is copied here.
        const isCopied = given === undefined && options.mas !== undefined && fromTemplate !== undefined;
        const own = isCopied ? await copiedConfig(client, fromTemplate) : given;
        const { config, authenticationService } = await authenticated(own, options.mas);
        const created = await client.call<TenantView>("POST", "/v1/tenants", {
          body: { name, domain, host, serverName, release, config, labels, quotas, authenticationService, ...wishes },
          has: HAS,
        });
        // Before it is waited for: nothing is seen from outside until somebody publishes them.
        const dns = domain === undefined ? undefined : await dnsOfTenant(client, name);
        if (dns && isForPeople(output)) print(`${dnsWords(dns)}\n`);
        const waits = options.wait === true || options.admin !== undefined;
        if (authenticationService !== undefined && isForPeople(output)) print(await sectionOf(created, config));
        const now = waits ? await untilRunning(client, created, options) : created;
        const admin = await firstAdmin(client, name, options.admin, password);
        // At once, whatever comes after it: nobody can be told the password again.
        if (admin) (isForPeople(output) ? print : note)(registered(admin));
        const check = dns && options.wait ? await waitUntilReachable(client, name, options.timeout) : undefined;
        const picture = () =>
          waits ? `tenant ${name} is running at ${now.url}` : `tenant ${name} created; its URL is ${now.url}`;
        const more = { ...(dns ? { dns } : {}), ...(admin ? { admin } : {}), ...(check ? { check } : {}) };
        show(output, { ...tenantDetails(now), ...more }, picture);
      }),
    );

  takesTenants(tenant.command("update"))
    .description(
      "change tenants' release of Synapse, configuration, placement, isolation, labels, quotas, or when they sleep",
    )
    .option(
      "--release <version>",
      'move them to this release, database included; "fleet": to the fleet\'s, in its rollouts',
    )
    .option("--config <file>", "their settings for homeserver.yaml, which replace those they have (-: stdin)")
    .addOption(hibernationOption())
    .addOption(placementOption())
    .addOption(isolationOption())
    .addOption(labelOption("a label KEY=VALUE to set, or KEY- to remove; can be given several times"))
    .addOption(planOption('the plan of the configuration whose quotas they have; "none": no plan'))
    .addOption(quotaOption())
    .option("--no-quotas", "remove the quotas of their own")
    .addOption(metricsOption())
    .option("--revert-config", "take back settings that are not in effect: those they run with are asked for again")
    .option("--dry-run", "with --config: only say what would become of the configuration; 1 where it would be refused")
    .option("--wait", "wait until they run with the change")
    .addOption(timeoutOption())
    .action((given: string[], options: SpecOptions & ChoiceOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        if (options.dryRun) return tryOut(client, await choose(client, given, options), options, output);
        const { release, hibernation, placement, isolation, revertConfig, label: labels } = options;
        const plan = options.plan === "none" ? null : options.plan;
        if (options.quota && !options.quotas) throw new CliError(EXIT.usage, "give --quota or --no-quotas, not both");
        const quotas = options.quotas ? options.quota : {};
        if (
          release === undefined &&
          options.config === undefined &&
          !hibernation &&
          !placement &&
          !isolation &&
          !labels &&
          !quotas &&
          !options.metrics &&
          plan === undefined &&
          !revertConfig
        )
          throw new CliError(
            EXIT.usage,
            "nothing to change: give --release, --config, --hibernation, --placement, --isolation, --label, --plan, --quota, --metrics or --revert-config",
          );
        if (options.config !== undefined && revertConfig)
          throw new CliError(EXIT.usage, "give --config or --revert-config, not both");
        const config = options.config === undefined ? undefined : await readOverrides(options.config);
        const body = {
          release,
          config,
          hibernation,
          placement,
          isolation,
          labels,
          plan,
          quotas,
          metrics: options.metrics,
          revertConfig,
        };
        await actOn(await choose(client, given, options, "update"), output, {
          begin: (name) => client.call<TenantView>("PATCH", tenantPath(name), { body, has: HAS }),
          finish: async (name, updated) => {
            if (!options.wait) return updated;
            const begun = performance.now();
            const now = await untilRunning(client, updated, options);
            const left = Math.max(1_000, options.timeout - Math.round(performance.now() - begun));
            return isolation === "dedicated" ? waitUntilAlone(client, name, left) : now;
          },
          value: tenantDetails,
          words: (name) => `tenant ${name} ${options.wait ? "runs as updated" : "updated"}`,
        });
      }),
    );

  takesTenants(tenant.command("delete"))
    .alias("rm")
    .description("delete tenants; their databases and media are kept for a time unless --purge is given")
    .option("--purge", "remove their databases and media too; this cannot be undone, and is asked about unless --yes")
    .option("--wait", "wait until they are gone (the default)", true)
    .option("--no-wait", "return when deletion has been asked for")
    .addOption(timeoutOption())
    .action((given: string[], options: DeleteOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { purge, yes, wait, timeout } = options;
        // One that a selector names is asked about like several: it is more than was typed.
        const chosen = purge ? await choose(client, given, options) : await choose(client, given, options, "delete", 1);
        const question = `Remove ${chosen.names.join(", ")} with all messages, users and media, for good?`;
        if (purge && chosen.names.length > 0) await confirm({ question, otherwise: "nothing was deleted", yes });
        await actOn(chosen, output, {
          begin: (name) => client.call("DELETE", tenantPath(name), { query: { purge } }),
          finish: async (name) => {
            if (wait) await waitUntilGone(client, "tenant", name, timeout);
            return { name, purged: purge === true };
          },
          value: (deleted) => deleted,
          words: (name) => deletionWords(name, options),
        });
      }),
    );
}

/** Which there are, Synapse's release says; the API checks what can be a name. */
function metricsOption(): Option {
  return new Option(
    "--metrics <families>",
    'families of Synapse\'s metrics to export of them besides the few: names or beginnings such as "synapse_util_*", with commas; "all"; "few": no more',
  ).argParser((text) => (text === "few" ? [] : text.split(",").map((family) => family.trim())));
}

/** Nothing but a configuration can be judged beforehand. */
async function tryOut(client: Client, choice: Choice, { config }: SpecOptions, output: Format): Promise<void> {
  if (config === undefined) throw new CliError(EXIT.usage, "--dry-run judges a configuration, and needs --config");
  const text = await readOverrides(config);
  let isRefused = false;
  await actOn(choice, output, {
    begin: (name) => verdictOn(client, name, text),
    finish: async (name, verdict) => {
      isRefused ||= verdict.verdict === "Refused";
      return { name, ...verdict };
    },
    value: (verdict) => verdict,
    words: (name, verdict) => `tenant ${name}: ${verdictWords(verdict)}`,
  });
  if (isRefused) throw new CliError(EXIT.failed, "the configuration would be refused");
}

async function firstAdmin(
  client: Client,
  tenant: string,
  user: string | undefined,
  password: string | undefined,
): Promise<Awaited<ReturnType<typeof register>> | undefined> {
  if (user === undefined) return undefined;
  try {
    return await register(client, tenant, { user, admin: true, password });
  } catch (error) {
    note(`tenant ${tenant} is there without its administrator: tenant register-user ${tenant} --user ${user} --admin`);
    throw error;
  }
}

async function adminPassword({ admin, adminPasswordStdin, config }: SpecOptions): Promise<string | undefined> {
  if (!adminPasswordStdin) return undefined;
  if (admin === undefined) throw new CliError(EXIT.usage, "--admin-password-stdin needs --admin");
  if (config === "-") throw new CliError(EXIT.usage, "stdin is either the configuration or the password");
  return givenPassword({ passwordFile: "-" });
}

function hibernationOption(): Option {
  return new Option(
    "--hibernation <when>",
    'when it sleeps: "never", "auto", or after this number of seconds without use',
  ).argParser(parseHibernation);
}

function placementOption(): Option {
  return new Option(
    "--placement <where>",
    'where it is wanted: "anywhere", or of "shard=NAME", "isolate", "spread-from=TENANT" (as often as needed) and ' +
      '"until=TIME" (not moved before), separated by commas',
  ).argParser(parsePlacement);
}

function isolationOption(): Option {
  return new Option("--isolation <kind>", "whether it has a process for itself or shares one with others").choices([
    "dedicated",
    "shared",
  ]);
}

function parsePlacement(text: string): Placement {
  if (text === "anywhere") return {};
  const placement: Placement = {};
  for (const part of text.split(",")) {
    const [key, value = ""] = part.split(/=(.*)/s);
    if (part === "isolate") placement.isolate = true;
    else if (key === "shard" && value !== "") placement.shard = value;
    else if (key === "spread-from" && value !== "") placement.spreadFrom = [...(placement.spreadFrom ?? []), value];
    else if (key === "until" && !Number.isNaN(Date.parse(value)))
      placement.doNotMoveUntil = new Date(value).toISOString();
    else
      throw new InvalidArgumentError(
        `${JSON.stringify(part)} is none of "anywhere", "shard=NAME", "isolate", "spread-from=TENANT" and "until=TIME" such as until=2030-01-31T06:00:00Z`,
      );
  }
  return placement;
}

function parseHibernation(text: string): TenantHibernation {
  if (text === "never") return { mode: "Never" };
  if (text === "auto") return { mode: "Auto" };
  const afterIdleSeconds = /^\d{1,8}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(afterIdleSeconds))
    throw new InvalidArgumentError('it is "never", "auto" or a number of seconds, such as 900');
  return { mode: "Auto", afterIdleSeconds };
}

/** Waits, and says what of the configuration that now runs is probably a mistake. */
async function untilRunning(client: Client, tenant: TenantView, { timeout }: WaitOptions): Promise<TenantView> {
  const now = await waitUntilRunning(client, tenant.metadata.name, tenant.metadata.generation, timeout);
  for (const warning of now.status.inEffect?.warnings ?? []) note(`warning: ${warning}`);
  return now;
}

function deletionWords(name: string, { purge, wait }: DeleteOptions): string {
  const done = wait ? "deleted tenant" : "deleting tenant";
  if (purge) return `${done} ${name}; its database and media ${wait ? "were" : "will be"} removed`;
  return `${done} ${name}; its database and media are kept (tenant list --deleted shows until when)`;
}
