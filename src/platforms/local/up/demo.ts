import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { UserError } from "../../../model/errors.ts";
import { writeAtomically } from "../files.ts";
import type { ControllerApi } from "./controller-api.ts";

export const DEMO_TENANTS = ["clinic-a", "clinic-b", "clinic-c"];
export const DEMO_ADMIN = "admin";
const POLL_MS = 200;
/** The first tenant of a release waits for its template database; slow machines take a while. */
const RUNNING_MS = 300_000;

const TenantSchema = z.object({
  url: z.string(),
  spec: z.object({ serverName: z.string(), release: z.string() }),
  status: z.object({ phase: z.string(), message: z.string(), shard: z.string().optional() }),
});

const ListSchema = z.object({ items: z.array(z.object({ metadata: z.object({ name: z.string() }) })) });

export interface DemoTenant {
  name: string;
  url: string;
  serverName: string;
  release: string;
  shard?: string;
  /** Why it does not run; the cluster does without it. */
  problem?: string;
}

/**
 * Creates the example tenants, each once: what its user deleted stays deleted. Waits until those that are there run, and gives each its
 * administrator.
 * @param record a file that tells the next start which have been made
 */
export async function ensureDemo(
  api: ControllerApi,
  { password, record }: { password: string; record: string },
  { onProgress, signal }: { onProgress: (step: string) => void; signal: AbortSignal },
): Promise<DemoTenant[]> {
  const { status, body } = await api.call("GET", "/v1/tenants", undefined, signal);
  if (status !== 200) throw new UserError("Environment", `the tenants cannot be listed: ${wordsOf(body)}`);
  const present = new Set(ListSchema.parse(body).items.map(({ metadata }) => metadata.name));
  const made = new Set(madeBefore(record, present));
  for (const name of DEMO_TENANTS) {
    if (made.has(name)) continue;
    const { status, body } = await api.call("POST", "/v1/tenants", { name }, signal);
    if (status >= 300 && status !== 409)
      throw new UserError("Environment", `the example tenant ${name} cannot be created: ${wordsOf(body)}`);
    present.add(name);
    made.add(name);
    writeAtomically(record, JSON.stringify([...made]));
  }
  writeAtomically(record, JSON.stringify([...made]));
  const tenants: DemoTenant[] = [];
  for (const name of DEMO_TENANTS.filter((example) => present.has(example))) {
    onProgress(`waiting for ${name}`);
    const tenant = await untilRunning(api, name, signal);
    if (tenant === undefined) continue;
    tenants.push(tenant);
    if (tenant.problem !== undefined) continue;
    const user = { username: DEMO_ADMIN, password, admin: true };
    const { status, body } = await api.call("POST", `/v1/tenants/${name}/users`, user, signal);
    if (status >= 300 && status !== 409)
      tenant.problem = `its user ${DEMO_ADMIN} cannot be registered: ${wordsOf(body)}`;
  }
  return tenants;
}

/** Data of an earlier version has no record; where one of the examples is, they have been made. */
function madeBefore(record: string, present: ReadonlySet<string>): string[] {
  try {
    return z.array(z.string()).parse(JSON.parse(readFileSync(record, "utf8")));
  } catch {
    return DEMO_TENANTS.some((name) => present.has(name)) ? DEMO_TENANTS : [];
  }
}

/** @returns undefined if it is deleted meanwhile */
async function untilRunning(api: ControllerApi, name: string, signal: AbortSignal): Promise<DemoTenant | undefined> {
  const deadline = Date.now() + RUNNING_MS;
  for (;;) {
    const { status, body } = await api.call("GET", `/v1/tenants/${name}`, undefined, signal);
    if (status === 404) return undefined;
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
