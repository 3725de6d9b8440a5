import { Cron } from "croner";
import { z } from "zod";

/** When something is done time and again, in UTC. */
export const ScheduleSchema = z.string().refine((text) => scheduleProblem(text) === undefined, {
  error: (issue) => scheduleProblem(String(issue.input)) ?? "a cron expression",
});

/** The next time after `since`; milliseconds. */
export function nextTime(schedule: string, since: number): number | undefined {
  return new Cron(schedule, { timezone: "UTC", paused: true }).nextRun(new Date(since))?.getTime();
}

/** What is wrong with a schedule, or undefined. */
function scheduleProblem(text: string): string | undefined {
  const wrong = 'a cron expression of five fields that comes about, such as "30 2 * * *"';
  if (text.trim().split(/\s+/).length !== 5) return wrong;
  try {
    return new Cron(text, { timezone: "UTC", paused: true }).nextRun() ? undefined : wrong;
  } catch {
    return wrong;
  }
}
