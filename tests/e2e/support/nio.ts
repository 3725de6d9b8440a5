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

/** Runs a client made with matrix-nio in a process of its own: it sends and syncs until `stop`. */
export function runNio(
  port: number,
  host: string,
  user: string,
  cluster: Cluster,
): { ready: Promise<void>; stop(): Promise<NioReport> } {
  const started = start(port, host, user, cluster);
  return {
    ready: started.then(() => {}),
    stop: async () => {
      const { child, lines } = await started;
      child.stdin.write("stop\n");
      return JSON.parse((await lines.next()).value as string) as NioReport;
    },
  };
}

async function start(port: number, host: string, user: string, cluster: Cluster) {
  const { nioPython } = await ensureTestTools({ onProgress: () => {} });
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
  const child = spawn(nioPython, [join(import.meta.dirname, "nio_client.py"), String(port), host, user], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.write(`${PASSWORD}\n`);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const first = (await lines.next()).value;
  if (first === undefined || !JSON.parse(first).ready) throw new Error("the nio client did not come up");
  return { child, lines };
}
