import { setTimeout as sleep } from "node:timers/promises";
import type { ShardView, TenantView } from "../api/views.ts";
import type { ClusterStatus } from "../controller/service/cluster-service.ts";
import type { Move, MoveResult } from "../model/move.ts";
import type { Client } from "./client.ts";
import { CliError, EXIT, Unreachable } from "./errors.ts";
import { progressOf } from "./progress.ts";

const POLL_MS = 200;
/** The controller may be replaced while somebody waits: it is back within seconds. */
const UNREACHABLE_MS = 30_000;

/** Where something that is waited for stands. */
export type Progress<T> = { done: T } | { failed: string } | { waiting: string };

/** Asks until it is done or failed, and tells how it goes. @throws CliError failed, timeout */
export async function waitFor<T>(
  what: string,
  timeoutMs: number,
  ask: () => Promise<Progress<T>>,
  lineEveryMs?: number,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  let lastAnswer = Date.now();
  const askAgain = async (): Promise<Progress<T>> => {
    try {
      const progress = await ask();
      lastAnswer = Date.now();
      return progress;
    } catch (error) {
      if (error instanceof Unreachable && Date.now() - lastAnswer < UNREACHABLE_MS) return { waiting: error.message };
      throw error;
    }
  };
  const told = await progressOf(what, lineEveryMs);
  try {
    for (;;) {
      const progress = await askAgain();
      if ("done" in progress) return progress.done;
      if ("failed" in progress) throw new CliError(EXIT.failed, progress.failed);
      const left = deadline - Date.now();
      if (left <= 0) {
        throw new CliError(EXIT.timeout, `${what}: not done within ${timeoutMs / 1000} s: ${progress.waiting}`);
      }
      told.tell(progress.waiting);
      await sleep(Math.min(POLL_MS, left));
    }
  } finally {
    told.stop();
  }
}

/** Whether a tenant runs as its spec wishes. */
export function settlement({ metadata, spec, status }: TenantView): Progress<void> {
  const { name, generation } = metadata;
  const seen = status.observedGeneration >= generation;
  const why = because(status.reason, status.message);
  const refused = status.refusedRelease;
  if (status.refusedConfig && seen && status.phase === "Running") {
    const { reason, message } = status.refusedConfig;
    return { failed: `tenant ${name} runs with its previous settings: ${because(reason, message)}` };
  }
  if (refused?.release === spec.release) {
    return { failed: `tenant ${name} stays on its present release: ${because(refused.reason, refused.message)}` };
  }
  if (status.phase === "Running" && seen) return why ? { failed: `tenant ${name}: ${why}` } : { done: undefined };
  // It takes the change when it is woken; what is wrong with it has been said by then.
  if (status.phase === "Asleep" && seen)
    return status.refusedConfig
      ? {
          failed: `tenant ${name} keeps its settings: ${because(status.refusedConfig.reason, status.refusedConfig.message)}`,
        }
      : { done: undefined };
  // The change is taken up when it is resumed.
  if (spec.suspended)
    return status.phase === "Suspended" && seen ? { done: undefined } : { waiting: `${name} is ${status.phase}` };
  // A failure of an earlier spec says nothing of the present one; the first has none before it.
  if (status.phase === "Failed" && (seen || generation === 1)) return { failed: `tenant ${name} failed: ${why}` };
  return {
    waiting: `${name} is ${status.phase}${status.move ? ` (${status.move.step})` : ""}${why ? `: ${why}` : ""}`,
  };
}

export async function waitUntilRunning(
  client: Client,
  name: string,
  generation: number,
  timeoutMs: number,
): Promise<TenantView> {
  return waitFor(`tenant ${name}`, timeoutMs, async () => {
    const tenant = await client.call<TenantView>("GET", `/v1/tenants/${name}`);
    // A later change of somebody else's is theirs to wait for, so the generation asked for is enough.
    const wished = { ...tenant, metadata: { ...tenant.metadata, generation } };
    const progress = settlement(wished);
    return "done" in progress ? { done: tenant } : progress;
  });
}

/** Waits until a dedicated tenant shares its shard with nobody, or is on none. @throws CliError failed, where no shard can be had for it */
export async function waitUntilAlone(client: Client, name: string, timeoutMs: number): Promise<TenantView> {
  return waitFor<TenantView>(`tenant ${name}`, timeoutMs, async () => {
    const tenant = await client.call<TenantView>("GET", `/v1/tenants/${name}`);
    const { phase, shard, move, reason, message } = tenant.status;
    if (phase === "Asleep" || phase === "Suspended") return { done: tenant };
    if (phase === "Failed") return { failed: `tenant ${name} failed: ${because(reason, message)}` };
    if (shard === undefined) return { waiting: `${name} is ${phase}: ${because(reason, message)}` };
    if (phase === "Running" && reason !== "") return { failed: `tenant ${name}: ${because(reason, message)}` };
    const { tenants } = await client.call<ShardView>("GET", `/v1/shards/${shard}`);
    if (phase === "Running" && !move && tenants.length === 1 && tenants[0] === name) return { done: tenant };
    return { waiting: move ? `${name} moves to ${move.to} (${move.step})` : `a shard for ${name} alone comes up` };
  });
}

/** @throws CliError failed, where somebody resumes it meanwhile */
export async function waitUntilSuspended(client: Client, name: string, timeoutMs: number): Promise<TenantView> {
  return waitFor<TenantView>(`tenant ${name}`, timeoutMs, async () => {
    const tenant = await client.call<TenantView>("GET", `/v1/tenants/${name}`);
    const { phase, shard } = tenant.status;
    if (!tenant.spec.suspended) return { failed: `tenant ${name} was resumed meanwhile` };
    if (phase === "Suspended" && shard === undefined) return { done: tenant };
    return { waiting: phase === "Suspended" ? `shard ${shard} stops ${name}` : `${name} is ${phase}` };
  });
}

/** @throws CliError failed, where it stays awake */
export async function waitUntilAsleep(client: Client, name: string, timeoutMs: number): Promise<TenantView> {
  return waitFor<TenantView>(`tenant ${name}`, timeoutMs, async () => {
    const tenant = await client.call<TenantView>("GET", `/v1/tenants/${name}`);
    const { phase, sleep } = tenant.status;
    if (phase === "Asleep") return { done: tenant };
    if (phase === "FallingAsleep") return { waiting: `${name} falls asleep (${sleep?.step ?? ""})` };
    return { failed: `tenant ${name} is ${phase}: somebody wanted it meanwhile; its events say what` };
  });
}

/** Waits until the object is not found any more. */
export async function waitUntilGone(
  client: Client,
  kind: "tenant" | "shard",
  name: string,
  timeoutMs: number,
): Promise<void> {
  await waitFor(`${kind} ${name}`, timeoutMs, async () => {
    const found = await client.find<TenantView | ShardView>(`/v1/${kind}s/${name}`);
    if (!found) return { done: undefined };
    const { phase, reason, message } = found.status;
    const why = because(reason, message);
    return { waiting: `still ${phase}${why ? `: ${why}` : ""}` };
  });
}

export async function waitForMove(client: Client, name: string, move: Move, timeoutMs: number): Promise<MoveResult> {
  return waitFor<MoveResult>(`move of ${name} from ${move.from} to ${move.to}`, timeoutMs, async () => {
    const { status } = await client.call<TenantView>("GET", `/v1/tenants/${name}`);
    if (status.lastMove?.id === move.id) return { done: status.lastMove };
    if (status.move?.id === move.id) return { waiting: status.move.step };
    // Another move may have come after it already.
    const { recentMoves } = await client.call<ClusterStatus>("GET", "/v1/status");
    const found = recentMoves.find(({ result }) => result.id === move.id);
    return found ? { done: found.result } : { waiting: status.phase };
  });
}

export function because(reason: string, message: string): string {
  return message ? `${message}${reason ? ` (${reason})` : ""}` : reason;
}
