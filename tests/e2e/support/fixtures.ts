import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import type { Cluster } from "./cluster.ts";

const often = { per_second: 10_000, burst_count: 10_000 };

/** Rate limits that a test does not run into; everything else is Synapse's default. */
export const UNLIMITED = {
  rc_message: often,
  rc_login: { address: often, account: often, failed_attempts: often },
  rc_joins: { local: often, remote: often },
  rc_invites: { per_room: often, per_user: often, per_issuer: often },
  rc_room_creation: often,
};

/** Writes a tenant's overrides and returns the arguments that give them to `tenant create` or `update`. */
export async function withConfig(
  cluster: Cluster,
  config: Record<string, unknown> | string = UNLIMITED,
): Promise<string[]> {
  const file = join(cluster.dataDir, `overrides-${Math.random().toString(36).slice(2)}.yaml`);
  await writeFile(file, typeof config === "string" ? config : stringify(config));
  return ["--config", file];
}
