import type { Plot } from "./result.ts";

const WIDTH = 720;
const HEIGHT = 360;
const LEFT = 70;
const RIGHT = 20;
const TOP = 64;
const BOTTOM = 52;
const COLOURS = ["#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#0e7490", "#a16207"];
const TICKS = 5;
/** More points than the picture has columns would only make the file large. */
const MOST_POINTS = 600;

/** Draws a plot: bars where x is words, otherwise lines. Readable on a white and on a dark page. */
export function drawPlot(plot: Plot): string {
  const bars = plot.x.values.some((value) => typeof value === "string");
  const finite = plot.series.flatMap(({ values }) => values).filter(Number.isFinite);
  const [low, high] = niceRange(Math.min(0, ...finite), Math.max(0, ...finite));
  const y = (value: number) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low));
  const parts = [
    `<text x="${LEFT}" y="22" class="title">${escape(plot.title)}</text>`,
    ...legend(plot),
    ...grid(low, high, y, plot.y.label),
    ...(bars ? drawBars(plot, y, y(Math.max(0, low))) : drawLines(plot, y)),
    `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 10}" text-anchor="middle">${escape(plot.x.label)}</text>`,
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui, sans-serif" font-size="12">
<style>text{fill:#333}.title{font-size:15px;font-weight:600}.grid{stroke:#ddd}.line{fill:none;stroke-width:2}</style>
<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>
${parts.join("\n")}
</svg>
`;
}

function legend({ series }: Plot): string[] {
  let x = LEFT;
  return series.map(({ name }, index) => {
    const at = x;
    // About 7 units a letter at this size.
    x += 30 + name.length * 7;
    return `<rect x="${at}" y="34" width="10" height="10" fill="${colour(index)}"/><text x="${at + 15}" y="43">${escape(name)}</text>`;
  });
}

function grid(low: number, high: number, y: (value: number) => number, label: string): string[] {
  const lines = Array.from({ length: TICKS + 1 }, (_, tick) => low + ((high - low) * tick) / TICKS).map(
    (value) =>
      `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${round(y(value))}" y2="${round(y(value))}" class="grid"/>` +
      `<text x="${LEFT - 8}" y="${round(y(value) + 4)}" text-anchor="end">${format(value)}</text>`,
  );
  const middle = (TOP + HEIGHT - BOTTOM) / 2;
  return [
    ...lines,
    `<text x="16" y="${middle}" text-anchor="middle" transform="rotate(-90 16 ${middle})">${escape(label)}</text>`,
  ];
}

function drawBars({ x, series }: Plot, y: (value: number) => number, zero: number): string[] {
  const group = (WIDTH - LEFT - RIGHT) / x.values.length;
  const width = Math.min(70, (group * 0.7) / series.length);
  return x.values.flatMap((word, place) => {
    const middle = LEFT + group * (place + 0.5);
    const bars = series.map(({ values }, index) => {
      const value = values[place] ?? Number.NaN;
      if (!Number.isFinite(value)) return "";
      const left = middle + (index - series.length / 2) * width;
      const [top, bottom] = [Math.min(y(value), zero), Math.max(y(value), zero)];
      return (
        `<rect x="${round(left + 2)}" y="${round(top)}" width="${round(width - 4)}" height="${round(bottom - top)}" fill="${colour(index)}"/>` +
        `<text x="${round(left + width / 2)}" y="${round(top - 4)}" text-anchor="middle">${format(value)}</text>`
      );
    });
    return [
      ...bars,
      `<text x="${round(middle)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${escape(String(word))}</text>`,
    ];
  });
}

function drawLines({ x, series }: Plot, y: (value: number) => number): string[] {
  const numbers = x.values.map(Number);
  const [first, last] = [Math.min(...numbers), Math.max(...numbers)];
  const place = (value: number) => LEFT + ((WIDTH - LEFT - RIGHT) * (value - first)) / (last - first || 1);
  const step = Math.max(1, Math.ceil(numbers.length / MOST_POINTS));
  const lines = series.map(({ values }, index) => {
    const points = numbers
      .map((at, position) => [at, values[position] ?? Number.NaN] as const)
      .filter(([, value], position) => position % step === 0 && Number.isFinite(value))
      .map(([at, value]) => `${round(place(at))},${round(y(value))}`);
    return `<polyline points="${points.join(" ")}" class="line" stroke="${colour(index)}"/>`;
  });
  const labels = Array.from({ length: TICKS + 1 }, (_, tick) => first + ((last - first) * tick) / TICKS).map(
    (value) =>
      `<text x="${round(place(value))}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${format(value)}</text>`,
  );
  return [...lines, ...labels];
}

/** A range that the ticks divide into numbers with few digits. */
function niceRange(low: number, high: number): [number, number] {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / TICKS));
  const step =
    [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size * TICKS >= span * 1.02) ?? 20 * power;
  const start = Math.floor(low / step) * step;
  return start + step * TICKS >= high ? [start, start + step * TICKS] : [start, start + 2 * step * TICKS];
}

/** Numbers with three significant digits. */
export function format(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}

function colour(index: number): string {
  return COLOURS[index % COLOURS.length]!;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
