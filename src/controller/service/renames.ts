import { randomUUID } from "node:crypto";
import { timeText } from "../../model/clock.ts";
import { isReservedFor } from "../../model/deleted-tenant.ts";
import { UserError } from "../../model/errors.ts";
import { tenantNameProblem } from "../../model/names.ts";
import type { Tenant } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import type { ControllerContext } from "../context.ts";
import { takeBack } from "../tenants/renaming.ts";
import { formerly, refuseRenamedTo } from "../tenants/storage-names.ts";

export interface RenameParts {
  /** @throws UserError NotFound */
  get(name: string): Promise<Tenant>;
  /** The long work that is under way for a tenant, in words. */
  busy(name: string): string | undefined;
  /** Where the configuration of the cluster names a tenant. */
  configNames(name: string): string[];
}

/** Writes down that a tenant is to have another name; src/controller/tenants/renaming.ts gives it that. */
export class RenameService {
  readonly #context: ControllerContext;
  readonly #parts: RenameParts;

  constructor(context: ControllerContext, parts: RenameParts) {
    this.#context = context;
    this.#parts = parts;
  }

  /** Does nothing where it has that name, or is to have it. @throws UserError InvalidInput, NotFound, AlreadyExists, Conflict */
  async ask(name: string, to: string): Promise<Tenant> {
    const { store, deletions, reader } = this.#context;
    if (!store.rename || !deletions)
      throw new UserError(
        "Conflict",
        "on Kubernetes a tenant's name is its resource's, which cannot be changed: use labels; or delete the resource with reclaimPolicy Retain, and create " +
          "one of the other name with the same server name, keys and database (docs/tenants.md, Rename)",
      );
    const problem = tenantNameProblem(to);
    if (problem !== undefined) throw new UserError("InvalidInput", problem);
    // Whoever creates a tenant does so alone: nobody takes the name between the look and the write.
    return deletions.lock.run(async () => {
      const there = await store.get("Tenant", name);
      // Asked twice, it may have been done meanwhile.
      if (!there && formerly(reader, name)?.metadata.name === to) return this.#parts.get(to);
      const present = there ?? (await this.#parts.get(name));
      if (name === to || present.status.rename?.to === to) return present;
      await this.#refuse(present, to);
      const asked = await modify(store, "Tenant", name, (tenant) => {
        const why = whyNotRenamed(tenant);
        if (why !== undefined) throw new UserError("Conflict", why);
        tenant.status.rename = this.#renameOf(tenant, to);
      });
      // One that began meanwhile looks at what was written just now (src/controller/backups/jobs.ts): one of both gives way.
      const work = asked && this.#workFor(name, to);
      if (!asked || work === undefined) return asked ?? this.#parts.get(name);
      const id = asked.status.rename?.id;
      const kept = await modify(store, "Tenant", name, ({ status }) => {
        if (status.rename?.id !== id) return false;
        takeBack(status, this.#context.clock.now());
        return true;
      });
      // It rested, and has the new name already: then it is the work that gives way.
      if (!kept) return this.#parts.get(to);
      throw new UserError("Conflict", work);
    });
  }

  async #refuse(tenant: Tenant, to: string): Promise<void> {
    const { store, deletions } = this.#context;
    const { name } = tenant.metadata;
    if (await store.get("Tenant", to)) throw new UserError("AlreadyExists", `there is a tenant named ${to} already`);
    refuseRenamedTo(this.#context, to);
    deletions?.reserved.refuse({ name: to });
    const deleted = await deletions?.records.get(to);
    if (deleted) throw new UserError("AlreadyExists", isReservedFor(deleted, `name ${to}`));
    this.#refuseNamed(name, to);
    const work = this.#workFor(name, to);
    if (work !== undefined) throw new UserError("Conflict", work);
  }

  #workFor(...names: string[]): string | undefined {
    for (const name of names) {
      const work = this.#parts.busy(name);
      if (work !== undefined) return `tenant ${name} has a job (${work}); try again after it`;
    }
    return undefined;
  }

  /** What names it, and is people's to change: it would lose what it has there, such as how long its backups are kept. */
  #refuseNamed(name: string, to: string): void {
    const { reader } = this.#context;
    const known = this.#parts.configNames(to);
    const places = this.#parts
      .configNames(name)
      .flatMap((place) => (known.includes(place) ? [] : [`${place} of the configuration`]));
    for (const { metadata, spec } of reader.values("Fleet")) {
      const { names } = spec.rollout.canaries;
      if (names.includes(name) && !names.includes(to)) places.push(`the canaries of ${metadata.name}`);
    }
    if (places.length === 0) return;
    throw new UserError(
      "Conflict",
      `tenant ${name} is named in ${places.join(" and in ")}: name ${to} there as well, so that it keeps what it has by that; the former name can go afterwards`,
    );
  }

  #renameOf({ status: { phase } }: Tenant, to: string): NonNullable<Tenant["status"]["rename"]> {
    const rests = phase === "Asleep" || phase === "FallingAsleep" || phase === "Suspended";
    const requestedAt = timeText(this.#context.clock.now());
    return { id: randomUUID(), to, requestedAt, ...(rests ? {} : { wakes: true }) };
  }
}

/** Why it keeps its name, or undefined. */
export function whyNotRenamed({ metadata, spec, status }: Tenant): string | undefined {
  const { name } = metadata;
  const { move, transition, restore, databaseMove, rename, phase, shard, quarantine } = status;
  if (metadata.deletionTimestamp !== undefined) return `tenant ${name} is being deleted`;
  if (spec.dedicated || transition || status.dedicated)
    return `tenant ${name} is dedicated; take that back first, so that it can be stopped`;
  if (rename) return `tenant ${name} is being renamed to ${rename.to} already`;
  if (move) return `tenant ${name} is being moved, from ${move.from} to ${move.to}; try again after it`;
  if (restore) return `tenant ${name} is being restored; rename it after that`;
  if (databaseMove) return `the database of ${name} is on its way to ${databaseMove.to}; rename it after that`;
  if (quarantine && phase === "Running")
    return `tenant ${name} is quarantined, and does not sleep: suspend it, rename it, and resume it`;
  const isReady = shard === undefined || phase === "Running" || phase === "FallingAsleep" || phase === "Suspended";
  if (isReady) return undefined;
  return `tenant ${name} is ${phase}; it is renamed while it runs, sleeps, or is suspended`;
}
