import type { Command } from "commander";
import type { ShardView } from "../../api/views.ts";
import type { ClusterEvent } from "../../model/event.ts";
import type { TenantUsage } from "../../model/tenant-usage.ts";
import { eventTable, recentEvents } from "../event-table.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { show, showList } from "../format.ts";
import { age, counted, fields, indented, table } from "../output.ts";
import { SHARD_SORT, shardDetails, shardRow, type ShardRow } from "../rows.ts";
import { sorted, sortOptions, type SortOptions } from "../sorting.ts";
import { because, waitUntilGone } from "../wait.ts";
import { addLogs } from "./logs.ts";
import { tenantPath } from "./tenant-path.ts";

export function addShard(program: Command): void {
  const shard = program
    .command("shard")
    .alias("shards")
    .description("shards: processes that host tenants of one Synapse release");

  const [sortBy, desc] = sortOptions(SHARD_SORT);
  shard
    .command("list")
    .alias("ls")
    .description("list all shards")
    .addOption(sortBy)
    .addOption(desc)
    .action((options: SortOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { items } = await client.call<{ items: ShardView[] }>("GET", "/v1/shards", { has: ["items"] });
        const rows = sorted(items.map(shardRow), options);
        showList(output, rows, "No shards found.", (wide) => shardTable(rows, wide));
      }),
    );

  shard
    .command("get")
    .description("show one shard")
    .argument("<name>", "name of the shard")
    .action((name: string, _options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const found = await client.call<ShardView>("GET", shardPath(name), { has: ["metadata", "spec", "status"] });
        show(output, shardDetails(found), (wide) => shardTable([shardRow(found)], wide));
      }),
    );

  shard
    .command("describe")
    .description("show everything about one shard: state, what its tenants take, events")
    .argument("<name>", "name of the shard")
    .action((name: string, _options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const found = await client.call<ShardView>("GET", shardPath(name), { has: ["metadata", "spec", "status"] });
        const tenants = await Promise.all(
          found.tenants.map(async (tenant) => {
            const { cpuShare } = await client.call<TenantUsage>("GET", `${tenantPath(tenant)}/usage`, {});
            return { name: tenant, cpuShare: cpuShare ?? null };
          }),
        );
        const events = await recentEvents(client, `Shard/${found.metadata.name}`);
        show(output, { ...shardDetails(found), shares: tenants, events }, () => description(found, tenants, events));
      }),
    );

  shard
    .command("drain")
    .description("move every tenant off a shard, then stop it; refused if they do not fit elsewhere")
    .argument("<name>", "name of the shard")
    .option("--wait", "wait until it is gone")
    .addOption(timeoutOption())
    .action((name: string, options: WaitOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const before = await client.call<ShardView>("GET", shardPath(name), { has: ["metadata", "spec", "status"] });
        await client.call("POST", `${shardPath(name)}/drain`);
        if (options.wait) await waitUntilGone(client, "shard", name, options.timeout);
        const moved = counted(before.tenants.length, "tenant");
        show(output, { name, drained: options.wait === true, tenants: before.tenants }, () =>
          options.wait
            ? `drained shard ${name}: ${moved} moved, and it is stopped`
            : `draining shard ${name}: ${moved} to move`,
        );
      }),
    );

  addLogs(shard, "shard", "print a shard's log", shardPath);
}

interface Share {
  name: string;
  cpuShare: number | null;
}

function description(
  { metadata, spec, status, tenants, capacity }: ShardView,
  shares: Share[],
  events: ClusterEvent[],
): string {
  const pairs: [string, string][] = [
    ["Name", metadata.name],
    ["Release", spec.release],
    ["Phase", status.phase],
    ["Reason", because(status.reason, status.message)],
    ["Address", status.address ?? ""],
    ["Created", `${metadata.creationTimestamp} (${age(metadata.creationTimestamp)} ago)`],
    ["Tenants", `${tenants.length} of ${capacity}`],
    ["Load", status.load === undefined ? "" : `${percent(status.load)} of a core`],
  ];
  if (spec.drain) pairs.push(["Drain", spec.drain]);
  if (status.keeps)
    pairs.push(["Keeps tenants", `since ${status.keeps.since}: ${because(status.keeps.reason, status.keeps.message)}`]);
  const hottestFirst = shares.toSorted((a, b) => (b.cpuShare ?? 0) - (a.cpuShare ?? 0));
  const rows = hottestFirst.map((row) => [row.name, row.cpuShare === null ? "" : percent(row.cpuShare)]);
  const taken = rows.length === 0 ? "" : `\n${indented(table(["TENANT", "CPU"], rows))}`;
  return `${fields(pairs)}${taken}\nEvents:${events.length === 0 ? " none" : `\n${indented(eventTable(events))}`}`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

function shardPath(name: string): string {
  return `/v1/shards/${encodeURIComponent(name)}`;
}

function shardTable(rows: ShardRow[], wide: boolean): string {
  const head = ["NAME", "RELEASE", "PHASE", "TENANTS", "CAPACITY", "LOAD", "ADDRESS"];
  return table(
    wide ? [...head, "AGE"] : head,
    rows.map((row) => {
      const load = row.load === null ? "" : `${Math.round(row.load * 100)}%`;
      const counts = [String(row.tenants), String(row.capacity)];
      const cells = [row.name, row.release, row.phase, ...counts, load, row.address ?? ""];
      return wide ? [...cells, age(row.createdAt)] : cells;
    }),
  );
}
