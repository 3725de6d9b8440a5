import type { Job } from "../model/backup.ts";
import type { Client } from "./client.ts";
import { waitFor } from "./wait.ts";

/** What a job has for certain in an answer of the API. */
export const JOB_HAS = ["id", "state", "message"] as const;

const WORDS = {
  Backup: "backup of",
  Verify: "verification of",
  Restore: "restore of",
  Import: "import of",
  Inspect: "inspection of",
} as const;

/** Waits until a job has ended, and tells a person how it goes. @throws CliError failed with what went wrong, timeout */
export async function waitForJob(client: Client, job: Job, timeoutMs: number): Promise<Job> {
  const what = `${WORDS[job.kind]} ${job.tenant}`;
  return waitFor<Job>(what, timeoutMs, async () => {
    const now = await client.find<Job>(`/v1/jobs/${job.id}`, { has: JOB_HAS });
    if (!now)
      return { failed: `${what} was interrupted, as the controller was started again; run the command once more` };
    if (now.state === "Succeeded") return { done: now };
    if (now.state === "Failed") return { failed: `${what} failed: ${now.message}` };
    return { waiting: now.message };
  });
}
