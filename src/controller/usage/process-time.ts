import { textWithin } from "../../model/bounded-text.ts";

const ANSWERS_WITHIN_MS = 5_000;
/** Synapse's metrics have some 300 KiB; what answers there is the owner's. */
const MOST_BYTES = 8 * 1024 ** 2;

/** What one start of a dedicated Synapse has taken. */
export interface ProcessTime {
  /** Tells starts apart. */
  startedAt: number;
  /** Its workers' as well. */
  cpuSeconds: number;
}

/** Of workers, if there are any, since the start of the main process (`multi_synapse/crew_time.py`). */
const OF_WORKERS = "multi_synapse_workers_cpu_seconds_total";

/** What a Synapse at `host:port` tells of its processes. @throws Error where it tells no such thing */
export async function processTimeAt(address: string): Promise<ProcessTime> {
  const answer = await fetch(`http://${address}/_synapse/metrics`, {
    signal: AbortSignal.timeout(ANSWERS_WITHIN_MS),
    redirect: "error",
  });
  if (answer.status !== 200) throw new Error(`${address} answers ${answer.status}`);
  const tooLong = `the metrics of ${address} have more than ${MOST_BYTES / 1024 ** 2} MiB`;
  const text = answer.body ? await textWithin(answer.body, MOST_BYTES, tooLong) : "";
  const cpuSeconds = metricIn(text, "process_cpu_seconds_total");
  const startedAt = metricIn(text, "process_start_time_seconds");
  if (cpuSeconds === undefined || startedAt === undefined)
    throw new Error(`the metrics of ${address} do not have process_cpu_seconds_total and process_start_time_seconds`);
  return { cpuSeconds: cpuSeconds + (metricIn(text, OF_WORKERS) ?? 0), startedAt };
}

/** https://prometheus.io/docs/instrumenting/exposition_formats/ */
function metricIn(text: string, name: string): number | undefined {
  const at = text.startsWith(`${name} `) ? 0 : text.indexOf(`\n${name} `) + 1;
  if (at === 0 && !text.startsWith(`${name} `)) return undefined;
  const [, value = ""] = text
    .slice(at, text.indexOf("\n", at) + 1 || undefined)
    .trim()
    .split(" ");
  const number = Number(value);
  return value !== "" && Number.isFinite(number) && number >= 0 ? number : undefined;
}
