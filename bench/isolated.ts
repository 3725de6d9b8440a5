import { Beside, type BesideSize, RATE, type Sample } from "./lib/beside.ts";
import { KINDS } from "./lib/hammers.ts";
import { type Bench, type BenchOptions, type BenchResult, type Figure, quantile } from "./lib/result.ts";
import { median } from "./lib/statistics.ts";
import { World } from "./lib/world.ts";

const FULL: BesideSize = { neighbours: 24, rounds: 3, seconds: 15, rooms: 30, settleMs: 0 };
const QUICK: BesideSize = { neighbours: 4, rounds: 1, seconds: 5, rooms: 10, settleMs: 0 };

const QUIET = "nobody hammered";

/** What `neighbours` comes to: a tenant that is throttled for minutes gets a shard of its own, and is not throttled there. */
export const bench: Bench = {
  name: "isolated",
  title: "Latency on a shard while a tenant that got one of its own is hammered in every way",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    return report(size, await World.with(log, (world) => measure(world, size, log)));
  },
};

type Samples = Map<string, Sample[]>;

async function measure(world: World, size: BesideSize, log: (line: string) => void): Promise<Samples> {
  const beside = await Beside.start(world, size, log, true);
  const samples: Samples = new Map();
  const run = async (name: string, kind: (typeof KINDS)[string] | undefined) =>
    samples.set(name, [...(samples.get(name) ?? []), await beside.measure(name, kind, false)]);
  for (let round = 1; round <= size.rounds; round++) {
    log(`round ${round} of ${size.rounds}`);
    for (const [name, kind] of Object.entries(KINDS)) {
      await run(QUIET, undefined);
      await run(name, kind);
    }
  }
  await beside.close();
  return samples;
}

function report({ neighbours, rounds, seconds }: BesideSize, samples: Samples): BenchResult {
  const cases = [QUIET, ...Object.keys(KINDS)];
  const p99 = (name: string, what: "send" | "sync") =>
    quantile(
      samples.get(name)!.flatMap((sample) => sample[what]),
      0.99,
    );
  const note = `${neighbours} neighbours; ${rounds} rounds of ${seconds} s, ${RATE} answers a second`;
  const figures = cases.flatMap((name): Figure[] => [
    ...(["send", "sync"] as const).flatMap((what): Figure[] => [
      { what: `${name}: ${what}, p99`, value: p99(name, what), unit: "ms", note },
      ...(name === QUIET
        ? []
        : [
            {
              what: `${name}: ${what}, p99, against nobody hammered`,
              value: p99(name, what) / p99(QUIET, what),
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
    plots: (["send", "sync"] as const).map((what) => ({
      title: `Latency of a neighbour's ${what}, the hammered one on a shard of its own`,
      x: { label: "case", values: cases },
      y: { label: "ms" },
      series: [0.5, 0.99].map((q) => ({
        name: `p${q * 100}`,
        values: cases.map((name) => median(samples.get(name)!.map((one) => quantile(one[what], q)))),
      })),
    })),
    raw: Object.fromEntries(samples),
  };
}
