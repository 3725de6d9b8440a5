import pc from "picocolors";
import { plain } from "./output.ts";

/** As shards and the controller write them; lines of another shape, such as those of a dying interpreter, are text. */
interface Entry {
  time: string;
  level: string;
  logger?: string;
  serverName?: string | null;
  request?: string | null;
  message: string;
}

export const LEVELS = ["debug", "info", "warning", "error", "critical"] as const;
export type Level = (typeof LEVELS)[number];

export interface LogFilter {
  /** Milliseconds since 1970. */
  since?: number;
  level?: Level;
}

/** Which lines are wanted. What is no entry goes with the one before it. */
export function lineFilter({ since, level }: LogFilter): (line: string) => boolean {
  const least = level === undefined ? 0 : LEVELS.indexOf(level);
  let isWanted = since === undefined && level === undefined;
  return (line) => {
    const entry = entryOf(line);
    if (entry) isWanted = (since === undefined || Date.parse(entry.time) >= since) && rank(entry.level) >= least;
    return isWanted;
  };
}

/** An entry as people read it: time of this place, level, where from, and what; with colours at a terminal. */
export function readable(line: string, isColored: boolean): string {
  const entry = entryOf(line);
  if (!entry) return plain(line);
  const colors = pc.createColors(isColored);
  const paint = [colors.dim, String, colors.yellow, colors.red, colors.red][rank(entry.level)] ?? String;
  const where = [entry.logger, entry.request].filter((word) => word).join(" ");
  const head = `${colors.dim(localTime(entry.time))} ${paint(entry.level.toUpperCase().padEnd(8))} ${colors.cyan(plain(where))}`;
  // A traceback is part of the message.
  return `${head}  ${entry.message.split("\n").map(plain).join("\n")}`;
}

function entryOf(line: string): Entry | undefined {
  if (!line.startsWith("{")) return undefined;
  try {
    const value = JSON.parse(line) as Partial<Entry>;
    const isEntry = [value.time, value.level, value.message].every((field) => typeof field === "string");
    return isEntry && !Number.isNaN(Date.parse(value.time!)) ? (value as Entry) : undefined;
  } catch {
    return undefined;
  }
}

/** A level of no known name counts as information. */
function rank(level: string): number {
  const found = LEVELS.indexOf(level.toLowerCase() as Level);
  return found === -1 ? LEVELS.indexOf("info") : found;
}

function localTime(time: string): string {
  const at = new Date(time);
  const two = (value: number, width = 2) => String(value).padStart(width, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${two(at.getMilliseconds(), 3)}`;
}
