import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { UserError } from "../../../model/errors.ts";
import type { ControllerApi } from "./controller-api.ts";

export const DEMO_TENANTS = ["clinic-a", "clinic-b", "clinic-c"];
export const DEMO_ADMIN = "admin";
const POLL_MS = 200;
/** The first tenant of a release waits for its template database; slow machines take a while. */
const RUNNING_MS = 300_000;

const TenantSchema = z.object({
  url: z.string(),
  spec: z.object({ serverName: z.string(), release: z.string() }),
  status: z.object({ phase: z.string(), reason: z.string(), message: z.string(), shard: z.string().optional() }),
});

export interface DemoTenant {
  name: string;
  url: string;
  serverName: string;
  release: string;
  shard?: string;
  /** Why it does not run; the cluster does without it. */
  problem?: string;
}

/** Creates the example tenants that are not there, waits until all run, and gives each its administrator. */
export async function ensureDemo(
  api: ControllerApi,
  password: string,
  { onProgress, signal }: { onProgress: (step: string) => void; signal: AbortSignal },
): Promise<DemoTenant[]> {
  for (const name of DEMO_TENANTS) {
    const { status, body } = await api.call("POST", "/v1/tenants", { name }, signal);
    if (status >= 300 && status !== 409)
      throw new UserError("Environment", `the example tenant ${name} cannot be created: ${wordsOf(body)}`);
  }
  const tenants: DemoTenant[] = [];
  for (const name of DEMO_TENANTS) {
    onProgress(`waiting for ${name}`);
    const tenant = await untilRunning(api, name, signal);
    tenants.push(tenant);
    if (tenant.problem !== undefined) continue;
    const user = { username: DEMO_ADMIN, password, admin: true };
    const { status, body } = await api.call("POST", `/v1/tenants/${name}/users`, user, signal);
    if (status >= 300 && status !== 409)
      tenant.problem = `its user ${DEMO_ADMIN} cannot be registered: ${wordsOf(body)}`;
  }
  return tenants;
}

async function untilRunning(api: ControllerApi, name: string, signal: AbortSignal): Promise<DemoTenant> {
  const deadline = Date.now() + RUNNING_MS;
  for (;;) {
    const { status, body } = await api.call("GET", `/v1/tenants/${name}`, undefined, signal);
    if (status === 404) throw new UserError("Environment", `the example tenant ${name} was deleted meanwhile`);
    if (status !== 200)
      throw new UserError("Environment", `the example tenant ${name} cannot be read: ${wordsOf(body)}`);
    const { url, spec, status: now } = TenantSchema.parse(body);
    const tenant: DemoTenant = {
      name,
      url,
      serverName: spec.serverName,
      release: spec.release,
      shard: now.shard,
    };
    if (now.phase === "Running") return tenant;
    if (now.phase === "Failed" || Date.now() > deadline)
      return { ...tenant, problem: now.message || `it is ${now.phase}` };
    await sleep(POLL_MS, undefined, { signal });
  }
}

function wordsOf(body: unknown): string {
  const parsed = z.object({ error: z.object({ message: z.string() }) }).safeParse(body);
  return parsed.success ? parsed.data.error.message : "the controller gave no reason";
}
