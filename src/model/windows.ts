import { Cron } from "croner";
import type { MaintenanceWindow } from "./fleet.ts";

/** What is wrong with a window, or undefined. */
export function windowProblem({ schedule, timezone, durationMinutes }: MaintenanceWindow): string | undefined {
  if (schedule.trim().split(/\s+/).length !== 5)
    return `the schedule ${JSON.stringify(schedule)} is not a cron expression of five fields, such as "0 2 * * 6"`;
  if (!(durationMinutes > 0)) return `durationMinutes is ${durationMinutes}, expected a number above 0`;
  try {
    const cron = new Cron(schedule, { timezone, paused: true });
    return cron.nextRun() ? undefined : `the schedule ${JSON.stringify(schedule)} never comes about`;
  } catch (error) {
    return `the schedule ${JSON.stringify(schedule)} with time zone ${JSON.stringify(timezone)}: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** Whether moves may begin now, and when they next may. Without windows: always. @param now milliseconds since the epoch */
export function windowAt(windows: readonly MaintenanceWindow[], now: number): { open: boolean; next?: number } {
  if (windows.length === 0) return { open: true };
  const nexts: number[] = [];
  for (const { schedule, timezone, durationMinutes } of windows) {
    const cron = new Cron(schedule, { timezone, paused: true });
    // The last opening up to now: a millisecond later, as the search begins before its reference.
    const [opened] = cron.previousRuns(1, new Date(now + 1));
    if (opened && now < opened.getTime() + durationMinutes * 60_000) return { open: true };
    const next = cron.nextRun(new Date(now));
    if (next) nexts.push(next.getTime());
  }
  return { open: false, ...(nexts.length > 0 ? { next: Math.min(...nexts) } : {}) };
}
