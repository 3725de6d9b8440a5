import { InvalidArgumentError, Option, type Command } from "commander";
import type { ClusterEvent } from "../../model/event.ts";
import { eventLine, eventTable } from "../event-table.ts";
import { withClient } from "../options.ts";
import { asYaml, showList, type Format } from "../format.ts";
import { sinceOption, write } from "./logs.ts";

const KINDS: Record<string, string> = {
  tenant: "Tenant",
  tenants: "Tenant",
  shard: "Shard",
  shards: "Shard",
  fleet: "Fleet",
};

interface EventOptions {
  follow?: boolean;
  for?: string;
  after?: number;
  since?: number;
  type?: ClusterEvent["type"];
}

export function addEvents(program: Command): void {
  program
    .command("events")
    .description("show what happened, oldest first")
    .option("-f, --follow", "go on with new events as they come (with -o json: one object a line)")
    .option("--for <object>", "only events of this object: tenant/NAME, shard/NAME or fleet/fleet", parseObject)
    .option("--after <id>", "only events with a higher id", parseId)
    .addOption(sinceOption("only events"))
    .addOption(new Option("--type <type>", "only events of this type").choices(["Normal", "Warning"]))
    .action((options: EventOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const query = { follow: options.follow, object: options.for, after: options.after };
        const events: ClusterEvent[] = [];
        for await (const line of client.lines("/v1/events", { query })) {
          if (line === "") continue;
          const event = JSON.parse(line) as ClusterEvent;
          if (options.since !== undefined && Date.parse(event.time) < options.since) continue;
          if (options.type !== undefined && event.type !== options.type) continue;
          if (options.follow) await write(followed(output, event));
          else events.push(event);
        }
        if (!options.follow) showList(output, events, "No events found.", () => eventTable(events));
      }),
    );
}

function followed(format: Format, event: ClusterEvent): string {
  if (format === "json") return `${JSON.stringify(event)}\n`;
  return format === "yaml" ? `---\n${asYaml(event)}` : `${eventLine(event)}\n`;
}

function parseObject(text: string): string {
  const [kind = "", name = "", ...rest] = text.split("/");
  const known = KINDS[kind.toLowerCase()];
  if (known === undefined || !/^[a-z0-9.-]{1,100}$/.test(name) || rest.length > 0) {
    throw new InvalidArgumentError("Allowed are tenant/NAME, shard/NAME and fleet/fleet.");
  }
  return `${known}/${name}`;
}

function parseId(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError("Allowed is a whole number.");
  return Number(text);
}
