import type { Installation } from "./installation.ts";
import { kubectl } from "./run.ts";

const KNOCK = 'timeout 5 bash -c "exec 3<>/dev/tcp/$0/$1" && echo open || echo closed';

/** Whether a pod that nobody has let in, the test's PostgreSQL server, reaches a port. @returns "open" or "closed" */
export async function knock({ namespace }: Installation, host: string, port: number): Promise<string> {
  const args = ["-n", namespace, "exec", "postgres", "--", "bash", "-c", KNOCK, host, `${port}`];
  return (await kubectl(...args)).trim();
}
