import { useQuery } from "@tanstack/react-query";
import { ApiFailure, type Schemas } from "../../api/client.ts";
import { usageMonthsQuery } from "../../api/queries.ts";
import { Command } from "../../ui/command.tsx";
import { bytes, count, seconds } from "../../ui/format.ts";
import { Card } from "../../ui/page.tsx";
import { Plot, type Line } from "../../ui/plot.tsx";
import { Empty, Waiting } from "../../ui/states.tsx";

type Month = Schemas["UsageMonth"];

interface Figure {
  title: string;
  format: (value: number) => string;
  lines: { name: string; tone: Line["tone"]; of: (month: Month) => number | undefined }[];
}

const FIGURES: readonly Figure[] = [
  { title: "Requests", format: count, lines: [{ name: "requests", tone: "accent", of: ({ requests }) => requests }] },
  {
    title: "Processor time",
    format: seconds,
    lines: [{ name: "used", tone: "accent", of: ({ cpuSeconds }) => cpuSeconds }],
  },
  {
    title: "Users",
    format: count,
    lines: [
      { name: "all", tone: "rest", of: ({ users }) => users },
      { name: "active", tone: "good", of: ({ activeUsers }) => activeUsers },
    ],
  },
  {
    title: "Storage",
    format: bytes,
    lines: [
      { name: "database", tone: "accent", of: ({ databaseBytes }) => databaseBytes },
      { name: "media", tone: "warn", of: ({ mediaBytes }) => mediaBytes },
    ],
  },
];

/** What a tenant took, by month: nothing of a single tenant is taken down more often. */
export function UsagePlots({ name }: { name: string }) {
  const usage = useQuery(usageMonthsQuery(name));
  if (usage.error instanceof ApiFailure && usage.error.status === 409) return null;
  if (!usage.data) return <Waiting query={usage} what="what it took" />;
  const months = usage.data.items.toSorted((a, b) => a.month.localeCompare(b.month));
  const times = months.map(({ month }) => Date.parse(`${month}-01T00:00:00Z`) / 1000);
  return (
    <Card title="By month">
      {months.length === 0 ? (
        <Empty title="Nothing is recorded yet">The first figures come within minutes of its first start.</Empty>
      ) : (
        <div className="stack">
          <div className="plots">
            {FIGURES.map(({ title, format, lines }) => (
              <Plot
                key={title}
                title={title}
                times={times}
                format={format}
                lines={lines.map(({ of, ...line }) => ({ ...line, values: months.map((month) => of(month) ?? null) }))}
                arePoints
              />
            ))}
          </div>
          <Command text={`synapse-shards tenant usage ${name}`} />
        </div>
      )}
    </Card>
  );
}
