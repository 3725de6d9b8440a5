import type { Policy } from "../../src/model/policy.ts";
import type { Action } from "../../src/planner/actions.ts";
import { canDrain, chooseTarget } from "../../src/planner/requests.ts";
import type { SnapshotShard, Snapshot, SnapshotTenant } from "../../src/planner/snapshot.ts";
import { NOW } from "./builders.ts";

/** What happens to the world from outside; numbers choose among what is there. */
export type Happening =
  | { kind: "add"; count: number; release: string }
  | { kind: "leave"; count: number; pick: number }
  | { kind: "delete" | "gone" | "upgrade" | "moveByUser" | "drainByUser" | "moveFails" | "moveRefused"; pick: number }
  | { kind: "quarantine" | "lift" | "heavy" | "calm" | "dedicate" | "share"; pick: number }
  | { kind: "use" | "leaveAlone" | "wake" | "fallsDue" | "keptAwake"; pick: number }
  | { kind: "load"; pick: number; share: number }
  | { kind: "wish"; pick: number; other: number; what: "shard" | "apart" | "stay" | "nothing" }
  | { kind: "window"; closed: boolean }
  | { kind: "gateways"; canWake: boolean }
  | { kind: "shard"; pick: number; to: "Lost" | "Failed" | "Ready" | "Starting" }
  | { kind: "policy"; change: Partial<Policy> }
  | { kind: "time"; seconds: number };

/** The world as the controller would make it of the planner's actions, without any effect. */
export class Simulator {
  now = NOW;
  tenants: SnapshotTenant[] = [];
  shards: SnapshotShard[] = [];
  policy: Policy;
  nobodyWakes = false;
  windowClosed = false;
  /** Shares of a core, which stay as they are until something happens. */
  readonly loads = new Map<string, number>();
  /** Tenants that somebody uses all the time. */
  readonly busy = new Set<string>();
  readonly #awakeSince = new Map<string, number>();
  #nextTenant = 0;
  readonly #releases: readonly string[];

  constructor(policy: Policy, releases: readonly string[]) {
    this.policy = policy;
    this.#releases = releases;
  }

  snapshot(): Snapshot {
    const { now, tenants, shards, nobodyWakes, windowClosed } = this;
    return structuredClone({ now, tenants, shards, nobodyWakes, windowClosed, loads: this.#loads() });
  }

  #loads(): Snapshot["loads"] {
    const even = (share: number) => ({ share, lasting: share });
    const sums = new Map<string, number>();
    for (const { name, shard } of this.tenants)
      if (shard !== undefined) sums.set(shard, (sums.get(shard) ?? 0) + (this.loads.get(name) ?? 0));
    return {
      tenants: new Map([...this.loads].map(([name, share]) => [name, even(share)])),
      shards: new Map([...sums].map(([name, share]) => [name, even(Math.min(1, share))])),
    };
  }

  apply(action: Action): void {
    switch (action.type) {
      case "CreateShard":
        this.shards.push({
          name: action.name,
          release: action.release,
          phase: "Pending",
          lastAssignmentChange: this.now,
          grownAt: this.now,
        });
        return;
      case "Assign":
        this.#tenant(action.tenant).shard = action.shard;
        return this.#touch(action.shard, this.#tenant(action.tenant).waking !== undefined);
      case "Unassign":
        delete this.#tenant(action.tenant).shard;
        return this.#touch(action.shard);
      case "Move":
        this.#tenant(action.tenant).move = { from: action.from, to: action.to };
        if (action.reason === "Balance")
          this.#tenant(action.tenant).balanced = { at: this.now, from: action.from, to: action.to };
        return this.#touch(action.to);
      case "Sleep": {
        const tenant = this.#tenant(action.tenant);
        Object.assign(tenant, { fallingAsleep: true, deleting: true });
        delete tenant.idle;
        return;
      }
      case "Wake": {
        const tenant = this.#tenant(action.tenant);
        delete tenant.asleep;
        Object.assign(tenant, { waking: { due: true }, shard: action.shard });
        return this.#touch(action.shard, true);
      }
      case "DrainShard":
        this.#shard(action.shard).drain = "Consolidation";
        return;
      case "CancelDrain":
        delete this.#shard(action.shard).drain;
        this.#shard(action.shard).grownAt = this.now;
        return;
      case "StopShard":
        this.#shard(action.shard).phase = "Stopping";
        return;
      case "SetPending":
      case "MarkWaiting":
      case "KeepTenants":
    }
  }

  happen(happening: Happening): void {
    switch (happening.kind) {
      case "add":
        for (let i = 0; i < happening.count; i++)
          this.tenants.push({ name: `t${this.#nextTenant++}`, release: happening.release, deleting: false });
        return;
      case "leave":
        for (let i = 0; i < happening.count; i++) {
          this.happen({ kind: "delete", pick: happening.pick + 7 * i });
          this.happen({ kind: "gone", pick: 0 });
        }
        return;
      case "delete":
        return this.#pick(this.tenants, happening.pick, (tenant) => {
          tenant.deleting = true;
          delete tenant.fallingAsleep;
          delete tenant.idle;
        });
      case "gone":
        return this.#pick(
          this.tenants.filter((t) => t.deleting && !t.move && !t.fallingAsleep),
          happening.pick,
          (tenant) => {
            if (tenant.shard !== undefined) this.#touch(tenant.shard);
            this.tenants = this.tenants.filter((other) => other !== tenant);
          },
        );
      case "upgrade":
        return this.#pick(this.tenants, happening.pick, (tenant) => {
          const at = this.#releases.indexOf(tenant.release) + 1;
          tenant.release = this.#releases[at % this.#releases.length] ?? tenant.release;
          delete tenant.refusedRelease;
        });
      case "moveByUser":
        return this.#pick(this.tenants, happening.pick, (tenant) => this.#moveByUser(tenant));
      case "drainByUser":
        return this.#pick(this.shards, happening.pick, (shard) => {
          if (canDrain(this.snapshot(), this.policy, shard.name).fits) shard.drain = "Requested";
        });
      case "moveFails":
        return this.#pick(
          this.tenants.filter((t) => t.move),
          happening.pick,
          (tenant) => {
            delete tenant.move;
            tenant.moveNotBefore = this.now + 30_000;
          },
        );
      case "moveRefused":
        return this.#pick(
          this.tenants.filter((t) => t.move && t.move.from !== t.move.to),
          happening.pick,
          (tenant) => {
            const to = this.shards.find((shard) => shard.name === tenant.move?.to);
            const from = this.shards.find((shard) => shard.name === tenant.move?.from);
            if (to && from && to.release !== from.release) tenant.refusedRelease = to.release;
            delete tenant.move;
          },
        );
      case "quarantine":
        return this.#pick(this.tenants, happening.pick, (tenant) => {
          tenant.isolated = true;
          delete tenant.idle;
        });
      case "heavy":
        return this.#pick(this.tenants, happening.pick, (tenant) => (tenant.heavy = true));
      case "calm":
        return this.#pick(
          this.tenants.filter((t) => t.heavy),
          happening.pick,
          (tenant) => delete tenant.heavy,
        );
      case "dedicate":
        return this.#pick(this.tenants, happening.pick, (tenant) => (tenant.dedicated = true));
      case "share":
        return this.#pick(
          this.tenants.filter((t) => t.dedicated),
          happening.pick,
          (tenant) => delete tenant.dedicated,
        );
      case "lift":
        return this.#pick(
          this.tenants.filter((t) => t.isolated),
          happening.pick,
          (tenant) => delete tenant.isolated,
        );
      case "use":
        return this.#pick(this.tenants, happening.pick, (tenant) => {
          this.busy.add(tenant.name);
          delete tenant.idle;
        });
      case "leaveAlone":
        return this.#pick([...this.busy], happening.pick, (name) => this.busy.delete(name));
      case "wake":
        return this.#pick(
          this.tenants.filter((t) => t.asleep && !t.deleting),
          happening.pick,
          (tenant) => {
            delete tenant.asleep;
            Object.assign(tenant, { waking: { due: false }, waitingSince: this.now });
          },
        );
      case "fallsDue":
        return this.#pick(
          this.tenants.filter((t) => t.asleep),
          happening.pick,
          (tenant) => (tenant.asleep = { wakeAt: this.now + 5_000 }),
        );
      case "keptAwake":
        return this.#pick(
          this.tenants.filter((t) => t.idle),
          happening.pick,
          (tenant) => tenant.idle && (tenant.idle.notBefore = this.now + 60_000),
        );
      case "load":
        return this.#pick(this.tenants, happening.pick, ({ name }) => this.loads.set(name, happening.share));
      case "wish":
        return this.#pick(this.tenants, happening.pick, (tenant) =>
          this.#wish(tenant, happening.what, happening.other),
        );
      case "window":
        this.windowClosed = happening.closed;
        return;
      case "gateways":
        this.nobodyWakes = !happening.canWake;
        return;
      case "shard":
        return this.#pick(
          this.shards.filter((s) => s.phase !== "Stopping"),
          happening.pick,
          (shard) => (shard.phase = happening.to),
        );
      case "policy":
        this.policy = { ...this.policy, ...happening.change };
        return;
      case "time":
        return this.pass(happening.seconds);
    }
  }

  /** Lets time pass: shards come up and go, moves end well. */
  pass(seconds: number): void {
    this.now += seconds * 1000;
    for (const tenant of this.tenants) if (tenant.move) this.#endMove(tenant, tenant.move);
    this.shards = this.shards.filter((shard) => shard.phase !== "Stopping");
    for (const tenant of this.tenants) this.#passSleep(tenant);
    for (const shard of this.shards) {
      if (shard.phase === "Pending") shard.phase = "Starting";
      else if (shard.phase === "Starting") shard.phase = "Ready";
      if (shard.phase === "Ready" && shard.drain) shard.phase = "Draining";
      else if (shard.phase === "Draining" && !shard.drain) shard.phase = "Ready";
    }
  }

  #passSleep(tenant: SnapshotTenant): void {
    const shard = this.shards.find(({ name }) => name === tenant.shard);
    if (tenant.fallingAsleep) {
      if (tenant.shard !== undefined) this.#touch(tenant.shard, true);
      for (const key of ["fallingAsleep", "shard", "waking"] as const) delete tenant[key];
      // Housekeeping, once in an hour.
      Object.assign(tenant, { deleting: false, asleep: { wakeAt: this.now + 3_600_000 } });
      return;
    }
    const runs = shard?.phase === "Ready" && !tenant.move && !tenant.deleting && !tenant.isolated;
    if (!runs) return;
    const isWoken = tenant.waking !== undefined || !this.#awakeSince.has(tenant.name);
    if (isWoken) this.#awakeSince.set(tenant.name, this.now);
    const wokenByTime = tenant.waking?.due ?? false;
    delete tenant.waking;
    delete tenant.waitingSince;
    if (this.busy.has(tenant.name)) delete tenant.idle;
    else tenant.idle ??= { since: this.now, awakeSince: this.#awakeSince.get(tenant.name), wokenByTime };
  }

  #endMove(tenant: SnapshotTenant, move: { from: string; to: string }): void {
    const target = this.shards.find((shard) => shard.name === move.to);
    if (!target || target.phase === "Lost" || target.phase === "Failed" || target.phase === "Stopping") {
      delete tenant.move;
      return;
    }
    // It waits until its target is up.
    if (target.phase !== "Ready" && target.phase !== "Draining") return;
    tenant.shard = move.to;
    delete tenant.move;
    this.#touch(move.from);
    this.#touch(move.to);
  }

  #moveByUser(tenant: SnapshotTenant): void {
    const target = chooseTarget(this.snapshot(), this.policy, tenant.name);
    if ("refused" in target || tenant.shard === undefined) return;
    const to = "shard" in target ? target.shard : target.create;
    if ("create" in target) {
      const release = to.replace(/-\d+$/, "");
      this.apply({ type: "CreateShard", name: to, release, reason: "AllShardsFull", message: "" });
    }
    tenant.move = { from: tenant.shard, to };
    this.#touch(to);
  }

  #wish(tenant: SnapshotTenant, what: "shard" | "apart" | "stay" | "nothing", other: number): void {
    delete tenant.placement;
    if (what === "shard") this.#pick(this.shards, other, ({ name }) => (tenant.placement = { shard: name }));
    if (what === "apart") this.#pick(this.tenants, other, ({ name }) => (tenant.placement = { spreadFrom: [name] }));
    if (what === "stay") tenant.pinnedUntil = this.now + 120_000;
  }

  #touch(name: string, sleepOrWake = false): void {
    const shard = this.shards.find((candidate) => candidate.name === name);
    if (shard) shard[sleepOrWake ? "lastSleepOrWake" : "lastAssignmentChange"] = this.now;
  }

  #tenant(name: string): SnapshotTenant {
    const tenant = this.tenants.find((candidate) => candidate.name === name);
    if (!tenant) throw new Error(`the plan names tenant ${name}, which there is not`);
    return tenant;
  }

  #shard(name: string): SnapshotShard {
    const shard = this.shards.find((candidate) => candidate.name === name);
    if (!shard) throw new Error(`the plan names shard ${name}, which there is not`);
    return shard;
  }

  #pick<T>(items: T[], pick: number, change: (item: T) => unknown): void {
    const item = items[pick % Math.max(1, items.length)];
    if (item !== undefined) change(item);
  }
}
