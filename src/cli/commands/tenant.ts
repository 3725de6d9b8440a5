import { Option, type Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import type { TenantRest } from "../../controller/service/cluster-service.ts";
import type { ClusterEvent } from "../../model/event.ts";
import type { Placement } from "../../model/placement.ts";
import type { TenantUsage } from "../../model/tenant-usage.ts";
import { eventTable, recentEvents } from "../event-table.ts";
import { withClient } from "../options.ts";
import { show, showList, type Format } from "../format.ts";
import { age, counted, fields, indented, seconds, table } from "../output.ts";
import { TENANT_SORT, tenantDetails, tenantRow, type TenantRow } from "../rows.ts";
import { sorted, sortOptions, type SortOptions } from "../sorting.ts";
import { because } from "../wait.ts";
import { watchTenants } from "../watching.ts";
import { addLogs, write } from "./logs.ts";
import { HAS, tenantPath } from "./tenant-path.ts";
import { addTenantChanges } from "./tenant-changes.ts";
import { addTenantBackups } from "./tenant-backups.ts";
import { addTenantInspect } from "./tenant-inspect.ts";
import { addTenantImport } from "./tenant-import.ts";
import { addTenantExport } from "./tenant-export.ts";
import { addCheck } from "./tenant-check.ts";
import { addMoveDatabase, copyWords } from "./tenant-database.ts";
import { addRename } from "./tenant-rename.ts";
import { addMove } from "./tenant-move.ts";
import type { Labels } from "../../model/labels.ts";
import { selected, selectorOption } from "../selecting.ts";
import { addDeleted, printDeleted } from "./tenant-deleted.ts";
import { addSleep } from "./tenant-sleep.ts";
import { addUsage } from "./tenant-usage.ts";
import { addQuotas } from "./quotas.ts";
import { addSuspend } from "./tenant-suspend.ts";
import { addQuarantine } from "./tenant-quarantine.ts";
import { addEdit } from "./tenant-edit.ts";
import { addAdminAccess } from "./tenant-admin-access.ts";
import { addAuthentication } from "./tenant-authentication.ts";
import { addAppServices } from "./tenant-appservice.ts";
import { addHosts } from "./tenant-host.ts";
import { addUsers } from "./tenant-users.ts";
import { addRegisterUser } from "./tenant-register-user.ts";
import { mebibytes } from "../../model/bytes.ts";

export function addTenant(program: Command): void {
  const tenant = program
    .command("tenant")
    .alias("tenants")
    .description("tenants: Matrix homeservers of their own name, users and database");

  addTenantChanges(tenant);

  const [sortBy, desc] = sortOptions(TENANT_SORT);
  tenant
    .command("list")
    .alias("ls")
    .description("list all tenants")
    .option("--deleted", "instead, those that were deleted and whose data is kept")
    .addOption(selectorOption().conflicts("deleted"))
    .addOption(sortBy)
    .addOption(desc)
    .addOption(watchOption().conflicts(["deleted", "sortBy", "desc"]))
    .action((options: SortOptions & { deleted?: boolean; selector?: string; watch?: true }, command: Command) =>
      withClient(command, async (client, { output }) => {
        if (options.watch) return watchTenants(client, asWatched({ selector: options.selector }, output));
        if (options.deleted) return printDeleted(client, output);
        const rows = sorted((await selected(client, options.selector)).map(tenantRow), options);
        showList(output, rows, "No tenants found.", (wide) => tenantTable(rows, wide));
      }),
    );

  tenant
    .command("get")
    .description("show one tenant")
    .argument("<name>", "name of the tenant")
    .addOption(
      new Option(
        "--show-config",
        "with -o json or yaml: the tenant's own configuration too; it may hold secrets",
      ).conflicts("watch"),
    )
    .addOption(watchOption())
    .action((name: string, options: { showConfig?: boolean; watch?: true }, command: Command) =>
      withClient(command, async (client, { output }) => {
        if (options.watch) {
          // There to begin with, or misspelt.
          await client.call<TenantView>("GET", tenantPath(name), { has: HAS });
          return watchTenants(client, asWatched({ name }, output));
        }
        const query = { includeConfig: options.showConfig };
        const found = await client.call<TenantView>("GET", tenantPath(name), { query, has: HAS });
        show(output, tenantDetails(found), (wide) => tenantTable([tenantRow(found)], wide));
      }),
    );

  tenant
    .command("describe")
    .description("show everything about one tenant: state, last move, events")
    .argument("<name>", "name of the tenant")
    .action((name: string, _options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const found = await client.call<TenantView>("GET", tenantPath(name), { has: HAS });
        const events = await recentEvents(client, `Tenant/${found.metadata.name}`);
        const usage = await client.call<TenantUsage>("GET", `${tenantPath(name)}/usage`, {});
        const rest = await client.call<TenantRest>("GET", `${tenantPath(name)}/rest`, { has: ["keepsAwake"] });
        const more = { usage, rest, events };
        show(output, { ...tenantDetails(found), ...more }, () => description(found, more));
      }),
    );

  addCheck(tenant);
  addMove(tenant);
  addMoveDatabase(tenant);
  addRename(tenant);
  addTenantBackups(tenant);
  addTenantInspect(tenant);
  addTenantImport(tenant);
  addTenantExport(tenant);
  addQuarantine(tenant);
  addSleep(tenant);
  addSuspend(tenant);
  addDeleted(tenant);
  addUsage(tenant);
  addQuotas(tenant);

  addLogs(tenant, "tenant", "print the lines of the log that concern a tenant", tenantPath);

  addRegisterUser(tenant);
  addUsers(tenant);
  addAppServices(tenant);
  addHosts(tenant);
  addAuthentication(tenant);
  addAdminAccess(tenant);
  addEdit(tenant);
}

export function tenantTable(rows: TenantRow[], wide: boolean): string {
  return table(
    tenantHead(wide),
    rows.map((row) => tenantCells(row, wide)),
  );
}

function tenantHead(wide: boolean): string[] {
  const head = ["NAME", "SERVER NAME", "RELEASE", "PHASE", "REASON", "SHARD", "URL"];
  return wide ? [...head, "EPOCH", "AGE", "LABELS"] : head;
}

function tenantCells(row: TenantRow, wide: boolean): string[] {
  const cells = [row.name, row.serverName, row.release, row.phase, row.reason ?? "", row.shard ?? "", row.url];
  return wide ? [...cells, String(row.epoch), age(row.createdAt), labelWords(row.labels)] : cells;
}

function watchOption(): Option {
  return new Option("-w, --watch", "go on with a line for each tenant that changes, until Ctrl-C");
}

function asWatched(query: { name?: string; selector?: string | undefined }, output: Format) {
  const wide = output === "wide";
  return { query, output, head: tenantHead(wide), cellsOf: (row: TenantRow) => tenantCells(row, wide), write };
}

interface More {
  usage: TenantUsage;
  rest: TenantRest;
  events: ClusterEvent[];
}

function description(tenant: TenantView, { usage, rest, events }: More): string {
  const { metadata, spec, status } = tenant;
  const { lastMove, move } = status;
  const pairs: [string, string][] = [
    ["Name", metadata.name],
    ["Server name", spec.serverName],
    ["URL", tenant.url],
    ["Synapse version", spec.release || `${status.fleetRelease ?? ""} (the fleet's)`],
    ["Labels", labelWords(spec.labels)],
    ["Plan", spec.plan ?? ""],
    ["Phase", status.phase],
    ["Reason", because(status.reason, status.message)],
    ["Shard", status.shard ?? ""],
    ...(status.databaseServer === undefined
      ? []
      : [["Database server", status.databaseServer] satisfies [string, string]]),
    ["Address", status.address ?? ""],
    ["Epoch", String(status.epoch)],
    ["Created", `${metadata.creationTimestamp} (${age(metadata.creationTimestamp)} ago)`],
    ["Generation", `${metadata.generation} (acted upon: ${status.observedGeneration})`],
    ...(spec.authenticationService === undefined
      ? []
      : [["Authentication", spec.authenticationService] satisfies [string, string]]),
    ["Own configuration", tenant.hasConfig ? "yes (tenant get --show-config -o yaml shows it)" : "none"],
  ];
  if (metadata.deletionTimestamp !== undefined) {
    const what = spec.reclaimPolicy === "Delete" ? "database and media are removed" : "database and media are kept";
    pairs.push(["Deletion", `asked for ${metadata.deletionTimestamp}; ${what}`]);
  }
  if (status.failures > 0) {
    pairs.push(["Failures", `${status.failures} in a row${status.retryAt ? `; tried again ${status.retryAt}` : ""}`]);
  }
  for (const warning of status.inEffect?.warnings ?? []) pairs.push(["Warning", warning]);
  for (const [quota, { state, since }] of Object.entries(status.quotas ?? {}))
    pairs.push(["Quota", `${quota}: the ${state.toLowerCase()} limit is reached, since ${since}`]);
  if (status.quarantine) pairs.push(["Quarantine", `since ${status.quarantine.since}: ${status.quarantine.message}`]);
  pairs.push(...usagePairs(usage));
  if (status.throttle)
    pairs.push([
      "Throttled",
      `since ${status.throttle.since}: it takes more than its CPU budget, and gateways let ` +
        `${Math.round(status.throttle.part * 100)} % of its requests in flight through`,
    ]);
  if (status.heavy) pairs.push(["Heavy", `since ${status.heavy.since}: ${status.heavy.message}`]);
  if (spec.placement) pairs.push(["Placement", placementText(spec.placement)]);
  if (spec.isolation) pairs.push(["Isolation", `${spec.isolation}: a shard for it alone`]);
  if (status.balanced) {
    const { at, from, to } = status.balanced;
    pairs.push(["Balanced", `moved from ${from} to ${to} for the load ${age(at)} ago`]);
  }
  if (status.stalls)
    pairs.push(["Stalls", `${status.stalls.count}, last ${status.stalls.lastAt} in ${status.stalls.where}`]);
  if (status.refusedRelease) {
    const { release, reason, message } = status.refusedRelease;
    pairs.push(["Refused release", `${release}: ${because(reason, message)}`]);
  }
  pairs.push(...sleepPairs(tenant, rest));
  if (status.databaseMove) {
    const { to, online } = status.databaseMove;
    pairs.push(["Database", `moves to ${to}${online ? `: ${copyWords(online)}` : ""}`]);
  }
  const { lastDatabaseMove, formerDatabases = [] } = status;
  if (lastDatabaseMove) {
    const { from, to, outcome, message: words, finishedAt } = lastDatabaseMove;
    pairs.push(["Last database move", `${from} to ${to}, ${age(finishedAt)} ago: ${outcome}: ${words}`]);
  }
  for (const { server, keptUntil } of formerDatabases)
    pairs.push(["Former database", `kept on ${server} until ${keptUntil}`]);
  const { rename, formerNames = [] } = status;
  if (rename) pairs.push(["Rename", `to ${rename.to}, asked for ${age(rename.requestedAt)} ago`]);
  for (const { name, until } of formerNames.toReversed()) pairs.push(["Former name", `${name}, until ${until}`]);
  if (status.storage !== undefined) pairs.push(["Data named", status.storage]);
  if (move) pairs.push(["Move", `${move.from} to ${move.to} (${move.reason}): ${move.step}`]);
  if (lastMove) {
    const requests = `${counted(lastMove.parkedRequests, "request")} parked, ${lastMove.failedRequests} failed`;
    const how = `${lastMove.outcome}${lastMove.message ? `: ${lastMove.message}` : ""}`;
    pairs.push(["Last move", `${lastMove.from} to ${lastMove.to} (${lastMove.reason}): ${how}`]);
    pairs.push(["", `${age(lastMove.finishedAt)} ago; blackout ${seconds(lastMove.blackoutSeconds)}, ${requests}`]);
  }
  const text = fields(pairs).replace(/^: {0,1}/m, "  ");
  return `${text}\nEvents:${events.length === 0 ? " none" : `\n${indented(eventTable(events))}`}`;
}

function labelWords(labels: Labels = {}): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(", ");
}

function usagePairs({ cpuShare, cpuBudget, databaseShare, holdings, database }: TenantUsage): [string, string][] {
  const pairs: [string, string][] = [];
  const percent = (share: number) => `${Math.round(share * 100)} %`;
  if (cpuShare !== undefined)
    pairs.push([
      "Processor",
      `${percent(cpuShare)} of a core${cpuBudget > 0 ? `, may take ${percent(cpuBudget)}` : ""}`,
    ]);
  if (holdings) {
    const { cacheEntries, responseBytes, databaseRows } = holdings;
    const passed = `${mebibytes(responseBytes)} answered and ${databaseRows} rows read and written since its start`;
    pairs.push(["Memory", `${cacheEntries} cache entries; ${passed}`]);
  }
  if (databaseShare !== undefined)
    pairs.push(["Statements", `${percent(databaseShare)} of the time of a database connection`]);
  if (database) pairs.push(["Database", `${mebibytes(database.bytes)}, ${age(database.at)} ago`]);
  return pairs;
}

/** Whether it may sleep, what keeps it awake, and when it wakes. */
function sleepPairs({ spec, status }: TenantView, rest: TenantRest): [string, string][] {
  const { sleep, awake } = status;
  const { mode = "Auto", afterIdleSeconds } = spec.hibernation ?? {};
  const own =
    afterIdleSeconds === undefined ? "after the cluster's time" : `after ${seconds(afterIdleSeconds)} without use`;
  const pairs: [string, string][] = [["Hibernation", mode === "Never" ? "never" : own]];
  if (sleep?.since !== undefined) pairs.push(["Asleep", `since ${sleep.since} (${age(sleep.since)}): ${sleep.reason}`]);
  if (rest.nextWake) pairs.push(["Wakes", `${rest.nextWake.at} at the latest: ${rest.nextWake.reason}`]);
  if (sleep) return pairs;
  if (awake) pairs.push(["Awake", `since ${awake.since} (${age(awake.since)}): ${awake.reason}`]);
  if (rest.unusedSeconds !== undefined) pairs.push(["Last use", `${seconds(rest.unusedSeconds)} ago`]);
  for (const [index, reason] of rest.keepsAwake.entries()) pairs.push([index === 0 ? "Kept awake" : "", reason]);
  if (rest.nextDue) pairs.push(["Next due", `${rest.nextDue.at}: ${rest.nextDue.reason}`]);
  return pairs;
}

function placementText({ shard, isolate, spreadFrom, doNotMoveUntil }: Placement): string {
  const parts = [
    shard === undefined ? "" : `on ${shard}`,
    isolate ? "on a shard of its own" : "",
    spreadFrom?.length ? `apart from ${spreadFrom.join(", ")}` : "",
    doNotMoveUntil === undefined ? "" : `not moved before ${doNotMoveUntil}`,
  ];
  return parts.filter((part) => part !== "").join("; ");
}
