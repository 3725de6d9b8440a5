import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { promisify } from "node:util";

const DIRECTORY = resolve(import.meta.dirname, "../../../charts/synapse-shards/crds");
const run = promisify(execFile);

/** Brings the chart's custom resource definitions into the cluster, and waits until they are served. By kubectl, as the client library drops `enum` and `default`. */
export async function applyCrds(): Promise<void> {
  await run("kubectl", ["apply", "--server-side", "--force-conflicts", "-f", DIRECTORY]);
  await run("kubectl", ["wait", "--for=condition=Established", "--timeout=30s", "-f", DIRECTORY]);
}
