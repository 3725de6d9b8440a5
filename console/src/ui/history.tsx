import { useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { ApiFailure, sentence, type Schemas } from "../api/client.ts";
import { historyQuery, type Range } from "../api/queries.ts";
import { Command } from "./command.tsx";
import { Card } from "./page.tsx";
import { Plot, type Line } from "./plot.tsx";
import { Empty, Waiting } from "./states.tsx";

/** What is plotted of series of the history. */
export interface Plotted {
  title: string;
  unit?: string;
  lines: { series: string; name: string; tone: Line["tone"] }[];
  format: (value: number) => string;
  areCounts?: boolean;
}

const RANGES: Record<Range, string> = {
  hour: "The last hour",
  day: "The last day",
  week: "The last week",
  month: "The last month",
  year: "13 months",
};

/** Plots over a time that a person chooses. @param shard default: of the cluster */
export function HistoryCard({ plots, shard }: { plots: readonly Plotted[]; shard?: string }) {
  const [range, setRange] = useState<Range>("day");
  const history = useQuery(historyQuery(range, shard));
  const chosen = shard === undefined ? "" : ` --shard ${shard}`;
  return (
    <Card
      title="Over time"
      aside={
        <select
          aria-label="Period"
          value={range}
          onChange={({ target }) => setRange(target.value as Range)}
          className="small"
        >
          {Object.entries(RANGES).map(([key, name]) => (
            <option key={key} value={key}>
              {name}
            </option>
          ))}
        </select>
      }
    >
      <div className="stack">
        <Plots history={history.data} query={history} plots={plots} />
        <Command text={`synapse-shards history --range ${range}${chosen}`} />
      </div>
    </Card>
  );
}

interface PlotsProps {
  history: Schemas["History"] | undefined;
  query: { error: Error | null; isPending: boolean; refetch: () => unknown };
  plots: readonly Plotted[];
}

function Plots({ history, query, plots }: PlotsProps) {
  if (!history) {
    const isKept = !(query.error instanceof ApiFailure && query.error.status === 409);
    return isKept ? <Waiting query={query} what="the history" /> : <Empty title={sentence(query.error!.message)} />;
  }
  const { from, stepSeconds, series } = history;
  const begin = Date.parse(from) / 1000;
  const steps = series[0]?.values.length ?? 0;
  if (steps === 0)
    return (
      <Empty title="Nothing is known of this time yet">A look is taken each minute while the controller runs.</Empty>
    );
  const word = wordOn(history);
  const times = Array.from({ length: steps }, (_, index) => begin + index * stepSeconds);
  return (
    <>
      {word !== undefined && <p className="hint">{word}</p>}
      <div className="plots">
        {plots.map(({ lines, ...plot }) => (
          <Plot
            key={plot.title}
            {...plot}
            times={times}
            lines={lines.map(({ series: own, ...line }) => ({
              ...line,
              values: series.find(({ name }) => name === own)?.values ?? times.map(() => null),
            }))}
          />
        ))}
      </div>
    </>
  );
}

/** Where the plots are from, where a Prometheus is configured. */
function wordOn({ problem, source }: Schemas["History"]): string | undefined {
  if (problem !== undefined) return sentence(problem);
  return source === "prometheus" ? "From Prometheus." : undefined;
}
