import Table from "cli-table3";
import pc from "picocolors";

export const isColored = process.stdout.isTTY === true && !process.env["NO_COLOR"];
const colors = pc.createColors(isColored);

/** Text for a terminal: control characters, which could drive it, become spaces. */
export function plain(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]+/g, " ");
}

/** A table as kubectl prints it: no borders, three spaces between columns. */
export function table(head: string[], rows: string[][]): string {
  const parts = ["top", "bottom", "left", "right", "mid"];
  const chars = Object.fromEntries(
    parts.flatMap((part) => [part, `${part}-mid`, `${part}-left`, `${part}-right`]).map((part) => [part, ""]),
  );
  const cells = new Table({
    head,
    chars: { ...chars, middle: "   " },
    style: { head: [], border: [], "padding-left": 0, "padding-right": 0 },
  });
  cells.push(...rows.map((row) => row.map((cell) => paint(plain(cell)))));
  return cells
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n");
}

const GOOD = new Set(["Running", "Ready", "Succeeded"]);
const BAD = new Set(["Failed", "Lost", "RolledBack", "Refused", "Warning"]);
const UNDER_WAY = new Set(["Pending", "Provisioning", "Starting", "Moving", "Deleting", "Draining", "Stopping"]);

/** Phases and outcomes by colour, on a terminal. */
export function paint(word: string): string {
  if (GOOD.has(word)) return colors.green(word);
  if (BAD.has(word)) return colors.red(word);
  return UNDER_WAY.has(word) ? colors.yellow(word) : word;
}

/** Lines of `Name:   value`, aligned; a value of several lines is indented below its name. */
export function fields(pairs: [name: string, value: string][]): string {
  const width = Math.max(...pairs.map(([name]) => name.length)) + 3;
  return pairs.map(([name, value]) => `${`${name}:`.padEnd(width)}${paint(plain(value) || "-")}`).join("\n");
}

export function print(text: string): void {
  process.stdout.write(text.endsWith("\n") ? text : `${text}\n`);
}

/** For people only: never in the way of what a script reads from stdout. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** How long ago, as kubectl says it: 5s, 3m, 2h, 4d. */
export function age(time: string | undefined, now = Date.now()): string {
  if (time === undefined) return "-";
  const seconds = Math.max(0, Math.floor((now - Date.parse(time)) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 2 * 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

/** 0.4123 → "0.41 s". */
export function seconds(value: number): string {
  return `${value.toFixed(2)} s`;
}

export function counted(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

export function indented(text: string): string {
  return text.replaceAll(/^/gm, "  ");
}
