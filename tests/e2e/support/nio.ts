import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ensureTestTools } from "../../../src/platforms/local/toolchain/toolchain.ts";
import type { Cluster } from "./cluster.ts";
import { PASSWORD } from "./matrix.ts";

export interface NioReport {
  sent: string[];
  heard: string[];
  errors: string[];
}

/**
 * Runs a client made with matrix-nio in a process of its own: it sends and syncs until `stop`.
 *
 * @param pollMs it waits so long at each sync, and sends only when it is told to
 */
export function runNio(
  port: number,
  host: string,
  user: string,
  cluster: Cluster,
  pollMs?: number,
): { ready: Promise<void>; send(): Promise<void>; stop(): Promise<NioReport> } {
  const started = start(port, host, user, cluster, pollMs);
  return {
    ready: started.then(() => {}),
    send: async () => void (await started).child.stdin.write("send\n"),
    stop: async () => {
      const { child, lines } = await started;
      child.stdin.write("stop\n");
      return JSON.parse((await lines.next()).value as string) as NioReport;
    },
  };
}

async function start(port: number, host: string, user: string, cluster: Cluster, pollMs?: number) {
  const { clientsPython } = await ensureTestTools({ onProgress: () => {} });
  const { code, stderr } = await cluster.cli(
    "tenant",
    "register-user",
    host.split(".")[0]!,
    "--user",
    user,
    "--password",
    PASSWORD,
  );
  if (code !== 0) throw new Error(`cannot register ${user}: ${stderr}`);
  const pause = pollMs === undefined ? [] : [String(pollMs)];
  const child = spawn(clientsPython, [join(import.meta.dirname, "nio_client.py"), String(port), host, user, ...pause], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.write(`${PASSWORD}\n`);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const first = (await lines.next()).value;
  if (first === undefined || !JSON.parse(first).ready) throw new Error("the nio client did not come up");
  return { child, lines };
}
