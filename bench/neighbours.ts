import { Beside, type BesideSize, p99, plotsOf, QUIET, RATE, type Samples } from "./lib/beside.ts";
import { KINDS } from "./lib/hammers.ts";
import type { Bench, BenchOptions, BenchResult, Figure } from "./lib/result.ts";
import { median } from "./lib/statistics.ts";
import { World } from "./lib/world.ts";

const FULL: BesideSize = { neighbours: 24, rounds: 2, seconds: 15, rooms: 30, settleMs: 18_000 };
const QUICK: BesideSize = { neighbours: 4, rounds: 1, seconds: 5, rooms: 10, settleMs: 10_000 };

export const bench: Bench = {
  name: "neighbours",
  title: "Latency beside a tenant that is hammered in every way, without and with its CPU budget",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const size = quick ? QUICK : FULL;
    return report(size, await World.with(log, (world) => measure(world, size, log)));
  },
};

const without = (kind: string) => `${kind}, no budget`;
const within = (kind: string) => `${kind}, budget`;

async function measure(world: World, size: BesideSize, log: (line: string) => void): Promise<Samples> {
  const beside = await Beside.start(world, size, log, false);
  for (let round = 1; round <= size.rounds; round++) {
    log(`round ${round} of ${size.rounds}`);
    for (const [name, kind] of Object.entries(KINDS)) {
      await beside.measure(QUIET, undefined, false);
      await beside.measure(without(name), kind, false);
      await beside.measure(within(name), kind, true);
    }
  }
  await beside.close();
  return beside.samples;
}

function report({ neighbours, rounds, seconds }: BesideSize, samples: Samples): BenchResult {
  const kinds = Object.keys(KINDS);
  const note = `${neighbours} neighbours; ${rounds} rounds of ${seconds} s, ${RATE} answers a second`;
  const figures: Figure[] = (["send", "sync"] as const).map((what) => ({
    what: `${QUIET}: ${what}, p99`,
    value: p99(samples, QUIET, what),
    unit: "ms",
    note: `${note}, before each case`,
  }));
  for (const kind of kinds)
    for (const name of [without(kind), within(kind)]) {
      const found = samples.get(name)!;
      for (const what of ["send", "sync"] as const) {
        figures.push(
          { what: `${name}: ${what}, p99`, value: p99(samples, name, what), unit: "ms", note },
          {
            what: `${name}: ${what}, p99, against nobody hammered`,
            value: p99(samples, name, what) / p99(samples, QUIET, what),
            unit: "×",
            ...(name === within(kind) ? { target: { at: "most" as const, value: 1.5 } } : {}),
            note,
          },
        );
      }
      figures.push(
        {
          what: `${name}: processor time of the hammered one`,
          value: median(found.map((one) => one.tenantShare)),
          unit: "cores",
          note,
        },
        {
          what: `${name}: what the hammered one gets done`,
          value: median(found.map((one) => one.hammered)),
          unit: "requests/s",
          note,
        },
      );
      if (name === within(kind))
        figures.push({
          what: `${name}: part of its requests in flight`,
          value: median(found.map((one) => one.part)),
          unit: "",
          note,
        });
    }
  figures.push({
    what: "part of the time in which the machine did not let the shard run",
    value: median([...samples.values()].flat().map((one) => one.starved)),
    unit: "",
    note: "median of all cases; above 0.1 the figures are the machine's",
  });
  const cases = [QUIET, ...kinds.flatMap((kind) => [without(kind), within(kind)])];
  return {
    name: bench.name,
    title: bench.title,
    figures,
    plots: plotsOf(samples, cases),
    raw: Object.fromEntries(samples),
  };
}
