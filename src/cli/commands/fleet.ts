import { InvalidArgumentError, Option, type Command } from "commander";
import type { FleetChange } from "../../controller/service/fleet-service.ts";
import type { Fleet, MaintenanceWindow, RolloutPolicy } from "../../model/fleet.ts";
import type { Client } from "../client.ts";
import { show } from "../format.ts";
import { parseDuration, parseWhole, timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { counted, fields } from "../output.ts";
import { because, waitFor, type Progress } from "../wait.ts";
import { defined } from "../../model/defined.ts";

const HAS = ["metadata", "spec", "status"] as const;

export function addFleet(program: Command): void {
  const fleet = program.command("fleet").description("the release that tenants follow, and its rollout in waves");

  fleet
    .command("status")
    .description("show the fleet's release, how far its rollout is, and what keeps it")
    .action((_options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const found = await client.call<Fleet>("GET", "/v1/fleet", { has: HAS });
        show(output, found, () => description(found));
      }),
    );

  const set = fleet
    .command("set")
    .description("roll out a release in waves, or change how; the first time, this makes the fleet")
    .option("--release <version>", "the release of Synapse that tenants of the fleet get, e.g. 1.163.2")
    .option("--canary <name>", "a tenant of the first wave; can be given several times", collect)
    .option("--canaries <count>", "this number of the oldest others are in the first wave too", parseWhole(0, 1000))
    .option("--wave-size <tenants>", "tenants in each wave after the first", parseWhole(1, 10_000))
    .option("--max-concurrent-moves <moves>", "moves of the rollout at once", parseWhole(1, 100))
    .option("--soak <duration>", "how long a wave must be well before the next begins, e.g. 10m", parseSeconds)
    .option("--progress-deadline <duration>", "a tenant that takes longer to arrive has failed", parseSeconds)
    .option("--max-failures <tenants>", "this number of failed tenants end the rollout", parseWhole(1, 10_000))
    .addOption(new Option("--on-failure <what>", "what becomes of it then").choices(["Halt", "RollBack"]))
    .option(
      "--window <window>",
      "when moves may begin: CRON;DURATION;TIMEZONE; can be given several times",
      (text: string, before: MaintenanceWindow[] | undefined) => [...(before ?? []), parseWindow(text)],
    )
    .option("--no-window", "moves may begin at any time")
    .option("--wait", "wait until every tenant of the fleet has the release")
    .addOption(timeoutOption());
  set.action((options: SetOptions, command: Command) =>
    withClient(command, async (client, { output }) => {
      const changed = await change(client, await changeOf(client, options));
      const { release } = changed.spec;
      const done = options.wait ? await arrived(client, release, options.timeout) : changed;
      show(output, done, () =>
        options.wait ? `fleet is at ${release}: ${arrivedWords(done)}` : `fleet is being brought to ${release}`,
      );
    }),
  );

  for (const [verb, paused, words] of [
    ["pause", true, "is paused: moves under way are finished, and no more begin"],
    ["resume", false, "goes on"],
  ] as const)
    fleet
      .command(verb)
      .description(paused ? "begin no more moves of the rollout" : "let a paused rollout go on")
      .action((_options, command: Command) =>
        withClient(command, async (client, { output }) => {
          const changed = await change(client, { rollout: { paused } });
          show(output, changed, () => `rollout of ${changed.spec.release} ${words}`);
        }),
      );

  fleet
    .command("rollback")
    .description("bring back the release before the present one; tenants that had gone are moved back")
    .option("--wait", "wait until every tenant of the fleet has it")
    .addOption(timeoutOption())
    .action((options: WaitOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const changed = await client.call<Fleet>("POST", "/v1/fleet/rollback", { has: HAS });
        const { release } = changed.spec;
        const done = options.wait ? await arrived(client, release, options.timeout) : changed;
        show(output, done, () =>
          options.wait
            ? `fleet is back at ${release}: ${arrivedWords(done)}`
            : `fleet is being brought back to ${release}`,
        );
      }),
    );
}

interface SetOptions extends WaitOptions {
  release?: string;
  canary?: string[];
  canaries?: number;
  waveSize?: number;
  maxConcurrentMoves?: number;
  soak?: number;
  progressDeadline?: number;
  maxFailures?: number;
  onFailure?: RolloutPolicy["onFailure"];
  /** false: of `--no-window`. */
  window?: MaintenanceWindow[] | boolean;
}

/** What was given; of the canaries, what was not given stays as it is. */
async function changeOf(client: Client, options: SetOptions): Promise<FleetChange> {
  const { release, canary, canaries, waveSize, maxConcurrentMoves, maxFailures, onFailure, window } = options;
  const given = {
    waveSize,
    maxConcurrentMoves,
    soakSeconds: options.soak,
    progressDeadlineSeconds: options.progressDeadline,
    maxFailures,
    onFailure,
    ...(window === undefined || window === true ? {} : { windows: window === false ? [] : window }),
    ...(canary === undefined && canaries === undefined ? {} : { canaries: await canariesOf(client, canary, canaries) }),
  };
  const rollout = defined(given);
  return {
    ...(release === undefined ? {} : { release }),
    ...(Object.keys(rollout).length === 0 ? {} : { rollout }),
  };
}

async function canariesOf(client: Client, names?: string[], count?: number): Promise<RolloutPolicy["canaries"]> {
  if (names !== undefined && count !== undefined) return { names, count };
  // A fleet that is to be made has none.
  const present = await client.find<Fleet>("/v1/fleet", { has: HAS });
  const { canaries } = present?.spec.rollout ?? { canaries: { names: [], count: names === undefined ? 1 : 0 } };
  return { names: names ?? canaries.names, count: count ?? canaries.count };
}

function change(client: Client, body: FleetChange): Promise<Fleet> {
  return client.call<Fleet>("PATCH", "/v1/fleet", { body, has: HAS });
}

/** @throws CliError failed, where the rollout ends before */
function arrived(client: Client, release: string, timeoutMs: number): Promise<Fleet> {
  return waitFor(`fleet to ${release}`, timeoutMs, async () => {
    const found = await client.call<Fleet>("GET", "/v1/fleet", { has: HAS });
    return progressOf(found, release);
  });
}

export function progressOf(fleet: Fleet, release: string): Progress<Fleet> {
  const { metadata, spec, status } = fleet;
  if (spec.release !== release) return { failed: `somebody set the fleet to ${spec.release} meanwhile` };
  if (status.observedGeneration < metadata.generation) return { waiting: "the controller takes it up" };
  const why = because(status.reason, status.message);
  if (status.phase === "Idle" && status.release === release) return { done: fleet };
  if (status.phase === "Halted" || status.phase === "RolledBack")
    return { failed: `the rollout of ${release} is ${status.phase}: ${why}` };
  return { waiting: `${status.phase}, ${status.updated} of ${status.total} tenants${why ? `: ${why}` : ""}` };
}

function arrivedWords({ status }: Fleet): string {
  const words = `${status.updated} of ${counted(status.total, "tenant")} have it`;
  return status.message === "" ? words : `${words}; ${status.message}`;
}

function description({ spec, status }: Fleet): string {
  const { rollout } = spec;
  const { canaries } = rollout;
  const pairs: [string, string][] = [
    ["Release", spec.release],
    ["Before", status.previousRelease ?? ""],
    ["Phase", status.phase],
    ["Reason", because(status.reason, status.message)],
    ["Tenants", `${status.updated} of ${status.total} have the release`],
    ["Wave", status.waves === 0 ? "" : `${status.wave + 1} of ${status.waves}`],
    ["Failed", status.failed.join(", ")],
    [
      "Canaries",
      [...canaries.names, ...(canaries.count > 0 ? [`the ${canaries.count} oldest others`] : [])].join(", "),
    ],
    [
      "Waves",
      `of ${rollout.waveSize}, ${rollout.maxConcurrentMoves} moves at once, ${rollout.soakSeconds} s in between`,
    ],
    ["On failure", `${rollout.onFailure} after ${counted(rollout.maxFailures, "failed tenant")}`],
    ["Windows", rollout.windows.map(windowWords).join("; ") || "at any time"],
  ];
  if (status.nextWindow !== undefined) pairs.push(["Next window", status.nextWindow]);
  return fields(pairs);
}

function windowWords({ schedule, durationMinutes, timezone }: MaintenanceWindow): string {
  return `"${schedule}" for ${durationMinutes} min (${timezone})`;
}

function parseWindow(text: string): MaintenanceWindow {
  const [schedule = "", duration = "", timezone = "UTC", ...rest] = text.split(";").map((part) => part.trim());
  if (schedule === "" || duration === "" || rest.length > 0)
    throw new InvalidArgumentError(
      "Allowed is a cron expression, a duration and a time zone, such as '0 2 * * 6;4h;Europe/Berlin'.",
    );
  return { schedule, durationMinutes: parseDuration(duration) / 60_000, timezone };
}

function parseSeconds(text: string): number {
  return text === "0" ? 0 : parseDuration(text) / 1000;
}

function collect(name: string, before: string[] = []): string[] {
  return [...before, name];
}
