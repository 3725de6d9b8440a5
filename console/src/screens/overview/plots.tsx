import { bytes, count, seconds } from "../../ui/format.ts";
import { HistoryCard, type Plotted } from "../../ui/history.tsx";

const PLOTS: readonly Plotted[] = [
  {
    title: "Tenants",
    format: tidy,
    lines: [
      { series: "running", name: "running", tone: "good" },
      { series: "asleep", name: "asleep", tone: "rest" },
      { series: "onTheWay", name: "on their way", tone: "accent" },
      { series: "failed", name: "failed", tone: "bad" },
    ],
  },
  {
    title: "Places on shards",
    format: tidy,
    lines: [
      { series: "placesTaken", name: "taken", tone: "accent" },
      { series: "places", name: "all", tone: "rest" },
    ],
  },
  {
    title: "Load",
    unit: "cores",
    format: (value) => value.toFixed(2),
    lines: [
      { series: "load", name: "all shards", tone: "accent" },
      { series: "busiest", name: "the busiest", tone: "warn" },
    ],
  },
  { title: "Memory of shards", format: bytes, lines: [{ series: "memory", name: "all", tone: "accent" }] },
  {
    title: "Moves",
    format: tidy,
    areCounts: true,
    lines: [
      { series: "moves", name: "ended", tone: "accent" },
      { series: "movesFailed", name: "failed", tone: "bad" },
    ],
  },
  {
    title: "Longest blackout",
    unit: "of a move",
    format: seconds,
    areCounts: true,
    lines: [{ series: "blackout", name: "longest", tone: "warn" }],
  },
  {
    title: "Wakes and sleeps",
    format: tidy,
    areCounts: true,
    lines: [
      { series: "wakes", name: "woken", tone: "good" },
      { series: "sleeps", name: "fell asleep", tone: "rest" },
    ],
  },
];

export function OverviewPlots() {
  return <HistoryCard plots={PLOTS} />;
}

/** An average of numbers of things may lie between two of them. */
function tidy(value: number): string {
  return count(Math.round(value * 10) / 10);
}
