/**
 * Gives a tenant another name. What its data are named by stays (src/model/storage-name.ts), so that nothing is copied or moved.
 *
 * | where it stands                      | what is done                                                                        |
 * | ------------------------------------ | ----------------------------------------------------------------------------------- |
 * | `status.rename` is written           | the planner and wakes leave it alone; the name is reserved                          |
 * | it runs                              | it is put to sleep, which parks its requests and releases its database; whatever it is at, as in a move |
 * | nobody runs it: asleep, suspended, … | one write of the store: record, events and figures of use have the new name, and who is kept apart from it by that name |
 * | it has the new name                  | gateways are told in one line, and it is woken if it ran before                     |
 *
 * A controller that is killed finds one of these. There is no moment at which both names are a tenant's, or neither is.
 */
import { messageOf, UserError } from "../../model/errors.ts";
import { storageField, storageOf } from "../../model/storage-name.ts";
import { timeText } from "../../model/clock.ts";
import { wantAwake } from "../../model/wake.ts";
import { isSuspended, type Tenant, type TenantRename } from "../../model/tenant.ts";
import { ConflictError, modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { routeOf } from "../routes/routes.ts";
import { SleepRequests, whyNot } from "../sleep/sleep-requests.ts";
import { ownerOf } from "../usage/usage-recorder.ts";
import { formerly } from "./storage-names.ts";

/** Falling asleep takes seconds: longer than this, its requests would have waited for too long, or it is at something else. */
const LONGEST_MS = 60_000;
const AGAIN_MS = 250;
/** Hints for who still uses an old name. */
const MOST_FORMER_NAMES = 10;

export class Renaming {
  readonly #context: ControllerContext;
  readonly #requests: SleepRequests;
  /** By id, since when this controller has been at it: the time in which there was none does not count. */
  readonly #since = new Map<string, number>();

  constructor(context: ControllerContext) {
    this.#context = context;
    this.#requests = new SleepRequests(context);
  }

  /** @returns milliseconds to wait; `goes on` where something else is to be done first */
  async run(tenant: Tenant, rename: TenantRename): Promise<number | "goes on"> {
    const { phase, shard, transition, dedicated } = tenant.status;
    if (tenant.spec.dedicated || transition || dedicated) {
      await this.#giveUp(tenant, rename, "it is dedicated, or is about to be");
      return "goes on";
    }
    if (shard === undefined && phase !== "FallingAsleep") return this.#carryOut(tenant, rename);
    const now = this.#context.clock.now();
    const since = this.#since.get(rename.id) ?? now;
    this.#since.set(rename.id, since);
    if (now - since > LONGEST_MS) {
      await this.#giveUp(tenant, rename, `it is ${phase} for too long`);
      return "goes on";
    }
    if (phase !== "Running" || shard === undefined || isSuspended(tenant)) return "goes on";
    const why = whyNot(tenant);
    if (why !== undefined) {
      await this.#giveUp(tenant, rename, `${why}; suspend it, rename it, and resume it`);
      return 0;
    }
    const { name } = tenant.metadata;
    const answer = await this.#requests.idleOn(shard, name).catch(() => undefined);
    // A controller that has just begun has not heard of its shards yet.
    const begun = answer && (await this.#requests.begin(name, shard, "Renamed", answer));
    return begun?.status.sleep ? 0 : AGAIN_MS;
  }

  async #carryOut(tenant: Tenant, rename: TenantRename): Promise<number> {
    const { store, reader, feed, claims, idle, recorder, clock } = this.#context;
    const former = tenant.metadata.name;
    const { to } = rename;
    // A shard that was lost may still run one that had the new name: no start of this one is to be taken for it.
    const epoch = Math.max(tenant.status.epoch, formerly(reader, to)?.status.epoch ?? 0);
    const after = renamed({ ...tenant, status: { ...tenant.status, epoch } }, rename, clock.now());
    const write = async () => store.rename?.(after, to, keptApart(reader.values("Tenant"), former, to));
    let now: Tenant | undefined;
    try {
      now = await (recorder ? recorder.renamed(ownerOf(tenant), to, write) : write());
    } catch (error) {
      if (error instanceof ConflictError) return 0;
      if (!(error instanceof UserError)) throw error;
      await this.#giveUp(tenant, rename, messageOf(error));
      return 0;
    }
    if (!now) return AGAIN_MS;
    this.#since.delete(rename.id);
    feed.rename(former, routeOf(reader.get("Tenant", to) ?? now, claims));
    idle.forget(former);
    await this.#say(to, "Normal", "Renamed", `${former} was renamed to ${to}`);
    return 0;
  }

  async #giveUp({ metadata: { name } }: Tenant, { id, to }: TenantRename, why: string): Promise<void> {
    this.#since.delete(id);
    let was = false;
    await modify(this.#context.store, "Tenant", name, ({ status }) => {
      was = status.rename?.id === id;
      if (was) takeBack(status, this.#context.clock.now());
      return was;
    });
    if (was) await this.#say(name, "Warning", "NotRenamed", `${name} is not renamed to ${to}: ${why}`);
  }

  #say(name: string, type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    return recordEvent(this.#context, { type, reason, object: `Tenant/${name}`, message });
  }
}

/** It keeps its name, and runs again if it ran before. */
export function takeBack(status: Tenant["status"], now: number): void {
  const { wakes = false } = status.rename ?? {};
  delete status.rename;
  if (wakes) wantAwake(status, "operator", now);
}

/** Others that are not to be on one shard with it, and name it. */
function keptApart(tenants: Iterable<Tenant>, former: string, to: string): Tenant[] {
  return [...tenants].flatMap((tenant) => {
    const { placement } = tenant.spec;
    if (!placement?.spreadFrom?.includes(former)) return [];
    const spreadFrom = [...new Set(placement.spreadFrom.map((name) => (name === former ? to : name)))];
    return [{ ...tenant, spec: { ...tenant.spec, placement: { ...placement, spreadFrom } } }];
  });
}

/** The record as it is to be, still under its former name. */
function renamed(tenant: Tenant, { to, wakes = false }: TenantRename, now: number): Tenant {
  const { name } = tenant.metadata;
  const { rename: _, storage: __, formerNames = [], ...kept } = tenant.status;
  const former = [...formerNames.filter((one) => one.name !== name && one.name !== to), { name, until: timeText(now) }];
  const status: Tenant["status"] = {
    ...kept,
    ...storageField(storageOf(tenant), to),
    formerNames: former.slice(-MOST_FORMER_NAMES),
  };
  if (wakes) wantAwake(status, "operator", now);
  return { ...tenant, status };
}
