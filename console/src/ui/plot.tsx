import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { momentText, timeOnAxis } from "./format.ts";
import { ScrollTable } from "./scroll-table.tsx";

export interface Line {
  name: string;
  /** Of `--NAME-fill`. */
  tone: "accent" | "good" | "warn" | "bad" | "rest";
  /** One of each time; null where nothing is known. */
  values: readonly (number | null)[];
}

export interface PlotProps {
  title: string;
  /** What the numbers are: `cores`, `bytes`. */
  unit?: string;
  /** Seconds of Unix time. */
  times: readonly number[];
  lines: readonly Line[];
  format: (value: number) => string;
  /** Of what happened within each time, not how it was at it. */
  areCounts?: boolean;
  /** Few enough to be seen one by one; also where there is only one. */
  arePoints?: boolean;
}

const HEIGHT = 168;
/** Not told apart by their colours alone. */
const DASHES: Record<Line["tone"], number[]> = { accent: [], good: [], warn: [6, 3], bad: [2, 2], rest: [8, 4] };

/** A plot of a few lines, with its numbers beside it: for those who do not see it, and for those who want to know exactly. */
export function Plot(props: PlotProps) {
  const { title, unit, times, lines, format } = props;
  const [at, setAt] = useState<number>();
  const known = lines.some(({ values }) => values.some((value) => value !== null));
  return (
    <figure className="plot">
      <figcaption>
        <strong>{title}</strong> {unit && <span className="muted">{unit}</span>}
        <span className="visually-hidden">{lines.map((line) => summaryOf(line, format)).join("; ")}</span>
      </figcaption>
      <ul className="legend">
        {lines.map(({ name, tone, values }) => {
          const value = at === undefined ? values.findLast((one) => one !== null) : values[at];
          return (
            <li key={name} data-tone={tone}>
              <i aria-hidden="true" />
              {name} <span className="number">{value === null || value === undefined ? "–" : format(value)}</span>
            </li>
          );
        })}
      </ul>
      {known ? <Canvas {...props} onPoint={setAt} /> : <p className="empty">Nothing is known of this time yet.</p>}
      <Numbers times={times} lines={lines} format={format} title={title} />
    </figure>
  );
}

function summaryOf({ name, values }: Line, format: (value: number) => string): string {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return `${name}: not known`;
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const between = least === most ? `always ${format(least)}` : `between ${format(least)} and ${format(most)}`;
  return `${name}: ${between}, last ${format(known.at(-1)!)}`;
}

function Canvas({
  times,
  lines,
  format,
  areCounts = false,
  arePoints = false,
  onPoint,
}: PlotProps & { onPoint: (at?: number) => void }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const theme = useTheme();
  const data = useMemo<uPlot.AlignedData>(
    () => [[...times], ...lines.map(({ values }) => [...values])] as uPlot.AlignedData,
    [times, lines],
  );
  // A plot is made again where its lines are others; where only their values are, those are put in.
  const kind = JSON.stringify([lines.map(({ name, tone }) => [name, tone]), theme, areCounts, arePoints]);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const made = new uPlot(optionsOf(element, { lines, format, areCounts, arePoints, onPoint }), data, element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = undefined;
    };
    // oxlint-disable-next-line react/exhaustive-deps -- `kind` stands for what it is made of
  }, [kind]);
  useEffect(() => plot.current?.setData(data), [data]);
  return <div ref={box} className="canvas" aria-hidden="true" />;
}

type Drawing = Pick<PlotProps, "lines" | "format"> & {
  areCounts: boolean;
  arePoints: boolean;
  onPoint: (at?: number) => void;
};

function optionsOf(element: HTMLElement, { lines, format, areCounts, arePoints, onPoint }: Drawing): uPlot.Options {
  const color = colorsAt(element);
  const [text, grid] = [color("var(--muted)"), { stroke: color("var(--line)"), width: 1 }];
  const axis = { stroke: text, grid, ticks: grid, font: `12px ${getComputedStyle(element).fontFamily}` };
  const stepped = areCounts ? uPlot.paths.stepped?.({ align: 1 }) : undefined;
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { y: { range: (_plot, _least, most) => [0, most > 0 ? most * 1.08 : 1] } },
    axes: [
      { ...axis, space: 72, values: (_plot, splits, _axis, _space, step) => splits.map((at) => timeOnAxis(at, step)) },
      { ...axis, size: 60, space: 32, values: (_plot, values) => values.map((value) => format(value)) },
    ],
    series: [
      {},
      ...lines.map(({ name, tone }): uPlot.Series => ({
        label: name,
        stroke: color(`var(--${tone}-fill)`),
        width: 1.75,
        dash: DASHES[tone],
        spanGaps: false,
        // Between times of which nothing is known, one alone makes no line.
        points: arePoints ? { show: true, size: 6 } : { show: true, size: 5, filter: alone },
        ...(stepped ? { paths: stepped } : {}),
      })),
    ],
    hooks: { setCursor: [({ cursor }) => onPoint(cursor.idx ?? undefined)] },
  };
}

function alone(plot: uPlot, series: number): number[] {
  const values = plot.data[series] ?? [];
  const isKnown = (index: number) => (values[index] ?? null) !== null;
  return [...values.keys()].filter((index) => isKnown(index) && !isKnown(index - 1) && !isKnown(index + 1));
}

/** Colours as they are here and now: what CSS chooses by the theme, a canvas has to be told. */
function colorsAt(element: HTMLElement): (value: string) => string {
  return (value) => {
    const probe = document.createElement("span");
    probe.style.color = value;
    element.append(probe);
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  };
}

/** Changes with the colours. */
function useTheme(): string {
  return useSyncExternalStore(
    (changed) => {
      const dark = matchMedia("(prefers-color-scheme: dark)");
      window.addEventListener("themechange", changed);
      dark.addEventListener("change", changed);
      return () => {
        window.removeEventListener("themechange", changed);
        dark.removeEventListener("change", changed);
      };
    },
    () => `${document.documentElement.dataset["theme"]} ${matchMedia("(prefers-color-scheme: dark)").matches}`,
  );
}

/** Of each time of which something is known, the latest first. */
function Numbers({ title, times, lines, format }: Pick<PlotProps, "title" | "times" | "lines" | "format">) {
  const [isOpen, setOpen] = useState(false);
  const rows = [...times.keys()].filter((index) => lines.some(({ values }) => (values[index] ?? null) !== null));
  return (
    <details onToggle={({ currentTarget }) => setOpen(currentTarget.open)}>
      <summary>
        Numbers<span className="visually-hidden"> of {title}</span>
      </summary>
      {isOpen && (
        <ScrollTable
          label={`Numbers of ${title}`}
          columns={["Time", ...lines.map(({ name }) => ({ name, className: "number" as const }))]}
        >
          {rows.toReversed().map((index) => (
            <tr key={times[index]}>
              <td className="time">{momentText(times[index]!)}</td>
              {lines.map(({ name, values }) => {
                const value = values[index] ?? null;
                return (
                  <td key={name} className="number">
                    {value === null ? "–" : format(value)}
                  </td>
                );
              })}
            </tr>
          ))}
        </ScrollTable>
      )}
    </details>
  );
}
