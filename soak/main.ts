/** `node soak/main.ts --minutes N`: random work and random harm on a live cluster, with an oracle after each step. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { describe, steps, type Step } from "./actions.ts";
import { SoakCluster } from "./cluster.ts";
import { Run, Violation } from "./run.ts";
import { Witness } from "./witness.ts";
import { freePort } from "../src/platforms/local/up/ports.ts";

const LIMITS = { tenantsPerShard: 3, shardsPerTag: 3 };
/** Small numbers, so that few tenants meet every limit. */
const CONFIG = {
  maxTenantsPerShard: LIMITS.tenantsPerShard,
  maxShardsPerSynapseImageTag: LIMITS.shardsPerTag,
  avgShardsLoadRedistributionThreshold: 2,
  consolidateAfterSeconds: 3,
  hibernation: { afterIdleSeconds: 3, minAwakeSeconds: 2, maxConcurrentWakes: 4 },
  shardLostAfterSeconds: 4,
  // A busy machine would make every shard hot.
  balancing: { cpuTarget: 0 },
  cpuBudget: { databasePerTenant: 0 },
};
/** The number of tenants that have a place if all want the same release. */
const MOST_TENANTS = LIMITS.tenantsPerShard * LIMITS.shardsPerTag;
const NOTES_SHOWN = 25;

interface Options {
  minutes: number;
  seed: number;
  tenants: number;
  keep: boolean;
  templatesFirst: boolean;
  witness: boolean;
}

const program = new Command("soak")
  .description(
    "Creates, deletes, moves, upgrades, kills and loads at random on a live local cluster, and checks after each step that nothing is lost.",
  )
  .requiredOption("--minutes <n>", "how long; the step that runs then is finished", inRange(0.1, 10_000))
  .option(
    "--seed <n>",
    "repeats the actions of the run with this seed",
    inRange(0, 2 ** 32 - 1, true),
    Math.floor(Math.random() * 2 ** 32),
  )
  .option("--tenants <n>", "how many different tenants", inRange(2, MOST_TENANTS, true), 6)
  .option("--templates-first", "make the releases' template databases one after the other before the first step", false)
  .option("--no-witness", "without another server that sends to the tenants and is not to back off from them")
  .option("--keep", "leave the data directory also after success", false);
program.parse();
process.exitCode = await soak(program.opts<Options>());

async function soak({ minutes, seed, tenants, keep, templatesFirst, witness }: Options): Promise<number> {
  const dataDir = await mkdtemp(join(tmpdir(), "synapse-shards-soak-"));
  const notes: string[] = [];
  const say = (line: string): void => void process.stdout.write(`${new Date().toISOString()} ${line}\n`);
  say(`soak of ${minutes} minutes, seed ${seed}, ${tenants} tenants, data in ${dataDir}`);
  const end = Date.now() + minutes * 60_000;
  let interrupted = false;
  for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => (interrupted = true));
  const cluster = new SoakCluster(dataDir);
  let run: Run | undefined;
  let number = 0;
  let last: Step | undefined;
  let failed = false;
  try {
    const port = witness ? await freePort("127.0.0.1") : undefined;
    await cluster.start(CONFIG, port);
    const other = port === undefined ? undefined : await Witness.start(port, dataDir);
    run = new Run(cluster, LIMITS, (line) => notes.push(`${new Date().toISOString()} ${line}`), other);
    if (templatesFirst) await run.makeTemplates();
    for (const step of steps({ seed, tenants })) {
      if (Date.now() > end || interrupted) break;
      number = step.number;
      const what = step.actions.map(({ action }) => describe(action)).join(", ");
      last = step;
      say(`step ${number}${step.graceful ? " (gentle)" : ""}: ${what}: ${await run.step(step)}`);
    }
    if (last) await run.finish(last);
  } catch (error) {
    failed = true;
    const findings =
      error instanceof Violation
        ? error.findings
        : [error instanceof Error ? (error.stack ?? error.message) : String(error)];
    say(`FAILED at step ${number} of seed ${seed} with ${tenants} tenants:`);
    for (const finding of findings) say(`  ${finding}`);
    say(`the last actions:`);
    for (const note of notes.slice(-NOTES_SHOWN)) process.stdout.write(`  ${note}\n`);
    say(`logs and data: ${dataDir} (controller.log, gateway.log, shards/*/shard.log, up.output.log)`);
  }
  failed = !(await ending(run, cluster, say)) || failed;
  if (!failed) say(`${number} steps, all is well`);
  if (!failed && !keep) await rm(dataDir, { recursive: true, force: true });
  return failed ? 1 : 0;
}

/** @returns whether everything ended without force, as it should */
async function ending(run: Run | undefined, cluster: SoakCluster, say: (line: string) => void): Promise<boolean> {
  try {
    await run?.close();
    const forced = await cluster.end();
    if (forced.length > 0)
      say(`FAILED: after the orderly end of up there were still the processes ${forced.join(", ")}`);
    return forced.length === 0;
  } catch (error) {
    say(`FAILED at the end: ${String(error)}`);
    await cluster.end().catch(() => {});
    return false;
  }
}

function inRange(least: number, most: number, whole = false) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !(value >= least && value <= most) || (whole && !Number.isInteger(value)))
      throw new InvalidArgumentError(`a ${whole ? "whole " : ""}number from ${least} to ${most} is needed.`);
    return value;
  };
}
