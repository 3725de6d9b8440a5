import type { ClusterService, ClusterStatus } from "../../controller/service/cluster-service.ts";
import type { Problem } from "../../controller/service/problems.ts";
import type { BackupEntry } from "../../controller/service/backup-service.ts";
import type { Job } from "../../model/backup.ts";
import type { ClusterEvent } from "../../model/event.ts";
import type { Actor } from "../../model/role.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { UsageOwner } from "../../model/usage-month.ts";
import type { AuditEntry } from "../audit.ts";
import type { Scope } from "./scope.ts";
import { limitedWords, withoutOthers } from "./without-others.ts";

/**
 * What there is about the cluster, as far as it is about the tenants of a scope. Names are given again to other people's tenants; so what is told of
 * a name counts only since its tenant was created, or renamed to it.
 */
type Seen = Pick<ClusterService, "listTenants" | "getTenant">;

export async function tenantsWithin(service: Seen, scope: Scope): Promise<Map<string, Tenant>> {
  return scope.among(await service.listTenants());
}

/** Whether something that happened then is about this tenant, and not about another one that had its name before. */
function isOf(tenant: Tenant | undefined, time: string): boolean {
  const renamedAt = tenant?.status.formerNames?.at(-1)?.until;
  return isSince(tenant, time) && (renamedAt === undefined || Date.parse(time) >= Date.parse(renamedAt));
}

function isSince(tenant: Tenant | undefined, time: string): boolean {
  return tenant !== undefined && Date.parse(time) >= Date.parse(tenant.metadata.creationTimestamp);
}

export async function statusWithin(service: Seen, scope: Scope, status: ClusterStatus): Promise<ClusterStatus> {
  if (scope.isAll) return status;
  const tenants = await tenantsWithin(service, scope);
  const byPhase: Record<string, number> = {};
  for (const { status: of } of tenants.values()) byPhase[of.phase] = (byPhase[of.phase] ?? 0) + 1;
  return {
    version: status.version,
    startedAt: status.startedAt,
    policy: status.policy,
    release: status.release,
    tenants: { total: tenants.size, byPhase },
    imageTags: [],
    movesInProgress: status.movesInProgress.filter(({ tenant }) => tenants.has(tenant)),
    recentMoves: status.recentMoves.filter(({ tenant, result }) => isOf(tenants.get(tenant), result.finishedAt)),
    gateways: [],
    // In sentences, of the whole cluster; `GET /v1/problems` has those of these tenants.
    problems: [],
  };
}

export async function problemsWithin(service: Seen, scope: Scope, problems: Problem[]): Promise<Problem[]> {
  if (scope.isAll) return problems;
  const tenants = await tenantsWithin(service, scope);
  return problems.filter(({ object }) => tenants.has(tenantIn(object) ?? ""));
}

export async function* eventsWithin(
  service: Seen,
  scope: Scope,
  events: AsyncIterable<ClusterEvent>,
): AsyncGenerator<ClusterEvent> {
  for await (const event of events) {
    if (scope.isAll) yield event;
    else if (isWithin(scope, await found(service, tenantIn(event.object)), event.time))
      yield { ...event, message: limitedWords(event.message) };
  }
}

export async function* auditWithin(
  service: Seen,
  { scope, actor }: { scope: Scope; actor: Actor | undefined },
  entries: AsyncIterable<AuditEntry>,
): AsyncGenerator<AuditEntry> {
  for await (const entry of entries) {
    if (scope.isAll) yield entry;
    else if (isWithin(scope, await found(service, tenantOfPath(entry.path)), entry.time))
      yield { ...withoutPlacement(entry), client: entry.actor === actor?.name ? entry.client : NOT_THEIRS_TO_KNOW };
  }
}

export async function jobsWithin(service: Seen, scope: Scope, jobs: Job[]): Promise<Job[]> {
  if (scope.isAll) return jobs;
  const tenants = await tenantsWithin(service, scope);
  return jobs.filter(({ tenant, requestedAt }) => isOf(tenants.get(tenant), requestedAt));
}

/** Rows that say whose they are by name and server name. */
export async function ownedWithin<T extends UsageOwner>(service: Seen, scope: Scope, rows: T[]): Promise<T[]> {
  if (scope.isAll) return rows;
  const tenants = await tenantsWithin(service, scope);
  return rows.filter(({ tenant, serverName }) => tenants.get(tenant)?.spec.serverName === serverName);
}

export async function backupsWithin<T extends BackupEntry>(service: Seen, scope: Scope, entries: T[]): Promise<T[]> {
  if (scope.isAll) return entries;
  const tenants = await tenantsWithin(service, scope);
  return entries.filter(({ backup }) => {
    const tenant = tenants.get(backup.tenant);
    return tenant?.spec.serverName === backup.serverName && isSince(tenant, backup.takenAt);
  });
}

/** Where an operator is. */
const NOT_THEIRS_TO_KNOW = "";

/** Beside which tenants an operator wants theirs, or not, is not a tenant admin's to know either. */
function withoutPlacement({ changes, ...entry }: AuditEntry): AuditEntry {
  const shown = changes?.filter(({ field }) => field !== "placement") ?? [];
  return withoutOthers(shown.length === 0 ? entry : { ...entry, changes: shown }) as AuditEntry;
}

function isWithin(scope: Scope, tenant: Tenant | undefined, time: string): boolean {
  return tenant !== undefined && scope.includes(tenant.spec) && isOf(tenant, time);
}

async function found(service: Seen, name: string | undefined): Promise<Tenant | undefined> {
  return name === undefined ? undefined : service.getTenant(name).catch(() => undefined);
}

function tenantIn(object: string | undefined): string | undefined {
  return /^Tenant\/(.+)$/.exec(object ?? "")?.[1];
}

function tenantOfPath(path: string): string | undefined {
  return /^\/v1\/tenants\/([a-z0-9-]+)(?:[/?]|$)/.exec(path)?.[1];
}
