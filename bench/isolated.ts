import { Beside, type BesideSize, p99, plotsOf, QUIET, RATE, type Samples } from "./lib/beside.ts";
import { KINDS } from "./lib/hammers.ts";
import type { Bench, BenchOptions, BenchResult, Figure } from "./lib/result.ts";
import { median } from "./lib/statistics.ts";
import { World } from "./lib/world.ts";

const FULL: BesideSize = { neighbours: 24, rounds: 3, seconds: 15, rooms: 30, settleMs: 0 };
const QUICK: BesideSize = { neighbours: 4, rounds: 1, seconds: 5, rooms: 10, settleMs: 0 };

/** What `neighbours` comes to: a tenant that is throttled for minutes gets a shard of its own, and is not throttled there. */
export const bench: Bench = {
  name: "isolated",
  title: "Latency on a shard while a tenant that got one of its own is hammered in every way",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    return report(size, await World.with(log, (world) => measure(world, size, log)));
  },
};

async function measure(world: World, size: BesideSize, log: (line: string) => void): Promise<Samples> {
  const beside = await Beside.start(world, size, log, true);
  for (let round = 1; round <= size.rounds; round++) {
    log(`round ${round} of ${size.rounds}`);
    for (const [name, kind] of Object.entries(KINDS)) {
      await beside.measure(QUIET, undefined, false);
      await beside.measure(name, kind, false);
    }
  }
  await beside.close();
  return beside.samples;
}

function report({ neighbours, rounds, seconds }: BesideSize, samples: Samples): BenchResult {
  const cases = [QUIET, ...Object.keys(KINDS)];
  const note = `${neighbours} neighbours; ${rounds} rounds of ${seconds} s, ${RATE} answers a second`;
  const figures = cases.flatMap((name): Figure[] => [
    ...(["send", "sync"] as const).flatMap((what): Figure[] => [
      { what: `${name}: ${what}, p99`, value: p99(samples, name, what), unit: "ms", note },
      ...(name === QUIET
        ? []
        : [
            {
              what: `${name}: ${what}, p99, against nobody hammered`,
              value: p99(samples, name, what) / p99(samples, QUIET, what),
              unit: "×",
              target: { at: "most" as const, value: 1.5 },
              note,
            },
          ]),
    ]),
    {
      what: `${name}: part of the time in which the machine did not let the neighbours' shard run`,
      value: median(samples.get(name)!.map(({ starved }) => starved)),
      unit: "",
    },
  ]);
  return {
    name: bench.name,
    title: bench.title,
    figures,
    plots: plotsOf(samples, cases, ", the hammered one on a shard of its own"),
    raw: Object.fromEntries(samples),
  };
}
