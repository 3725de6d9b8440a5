import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { nextLoad, type Load } from "../../src/model/load.ts";
import {
  isCalm,
  LEAST_PART,
  nextStanding,
  wantedShare,
  type CpuLimits,
  type CpuStanding,
} from "../../src/planner/cpu-budget.ts";

const LIMITS: CpuLimits = { budget: 0.25, averageSeconds: 30, isolateAfterSeconds: 600, calmSeconds: 3600 };
const LOOK_MS = 10_000;

/** A tenant on its shard, looked at every ten seconds; what it takes is what its users want, as far as it is let through. */
class Tenant {
  now = 1_000_000;
  standing: CpuStanding = {};
  hasNeighbours = true;
  changes = 0;
  /** How often it began to be heavy: a move each, where there is room. */
  separations = 0;
  #load: Load = { at: this.now, cpuSeconds: 0, starvedSeconds: 0 };
  #calmSince: number | undefined;
  readonly #limits: CpuLimits;
  constructor(limits = LIMITS) {
    this.#limits = limits;
  }

  get share(): number {
    return this.#load.share ?? 0;
  }
  get part(): number {
    return this.standing.throttle?.part ?? 1;
  }

  /** @param wanted share of a core that its users would take; `unthrottled`: that which no gateway sees */
  pass(seconds: number, wanted: number, unthrottled = 0): void {
    for (let past = 0; past < seconds * 1000; past += LOOK_MS) {
      this.now += LOOK_MS;
      const taken = Math.min(1, wanted * this.part + unthrottled);
      const cpuSeconds = this.#load.cpuSeconds + (taken * LOOK_MS) / 1000;
      this.#load = nextLoad(this.#load, { at: this.now, cpuSeconds, starvedSeconds: 0 }, this.#limits.averageSeconds);
      this.#calmSince = isCalm(this.share, this.#limits.budget) ? (this.#calmSince ?? this.now) : undefined;
      const { share, hasNeighbours } = this;
      const seen = { share, hasNeighbours, ...(this.#calmSince === undefined ? {} : { calmSince: this.#calmSince }) };
      const next = nextStanding(this.now, this.standing, seen, this.#limits);
      if (next.throttle?.part !== this.standing.throttle?.part) this.changes += 1;
      if (next.heavySince !== undefined && this.standing.heavySince === undefined) this.separations += 1;
      this.standing = next;
    }
  }
}

const look = (seconds: number, cpuSeconds: number, starvedSeconds = 0) => ({
  at: seconds * 1000,
  cpuSeconds,
  starvedSeconds,
});

describe("a tenant's load", () => {
  it("is weighted by time, whatever the distance between looks", () => {
    const [often, seldom] = [1, 20].map((seconds) => {
      let load: Load | undefined;
      for (let at = 0; at <= 120; at += seconds) load = nextLoad(load, look(at, at * 0.5), 30);
      return load?.share;
    });
    expect(often).toBeCloseTo(0.5 * (1 - Math.exp(-4)), 5);
    expect(seldom).toBeCloseTo(often!, 5);
  });

  it("keeps its share when the counter begins again with another process, and counts on from there", () => {
    let load = nextLoad(nextLoad(undefined, look(0, 100), 30), look(10, 105), 30);
    const before = load.share!;
    load = nextLoad(load, look(20, 1), 30);
    expect(load).toEqual({ ...look(20, 1), share: before });
    expect(nextLoad(load, look(30, 1), 30).share).toBeLessThan(before);
  });

  it("is a share of what the machine gives the process", () => {
    const whole = nextLoad(look(0, 0), look(1000, 500), 30);
    const half = nextLoad(look(0, 0), look(1000, 250, 500), 30);
    expect(whole.share).toBeCloseTo(0.5, 5);
    expect(half.share).toBeCloseTo(0.5, 5);
    expect(nextLoad(look(0, 0), look(1000, 10, 1000), 30).share).toBeCloseTo(0.2, 5);
  });
});

describe("the budget", () => {
  it("lets a burst pass, throttles what lasts, and lets go when it is over", () => {
    const tenant = new Tenant();
    tenant.pass(10, 0.6);
    tenant.pass(60, 0.02);
    expect(tenant.changes).toBe(0);
    tenant.pass(300, 0.8);
    expect(tenant.part).toBeLessThan(1);
    expect(tenant.share).toBeLessThanOrEqual(LIMITS.budget);
    tenant.pass(900, 0.02);
    expect(tenant.standing).toEqual({});
  });

  it("makes a tenant heavy that is throttled for long, and forgets it only after a long calm", () => {
    const tenant = new Tenant();
    tenant.pass(660, 1);
    expect(tenant.standing.heavySince).toBeDefined();
    tenant.pass(1800, 0.01);
    tenant.pass(60, 1);
    tenant.pass(1800, 0.01);
    expect(tenant.standing.heavySince).toBeDefined();
    tenant.pass(3600, 0.01);
    expect(tenant.standing).toEqual({});
    expect(tenant.separations).toBe(1);
  });

  it("judges a tenant that is held back by what it takes while it is not", () => {
    const after = (seconds: number, taken: number, heldBack: number): CpuStanding => {
      let standing: CpuStanding = { throttle: { part: 1 / 2, since: 0, changedAt: 0 } };
      const seen = { share: wantedShare(taken, heldBack), hasNeighbours: true };
      for (let now = 0; now <= seconds * 1000; now += LOOK_MS) standing = nextStanding(now, standing, seen, LIMITS);
      return standing;
    };
    // One that wants all it can get, and one that works little but has to wait often.
    expect(after(700, 0.09, 0.6)).toMatchObject({ throttle: { part: 1 / 2 }, heavySince: expect.any(Number) });
    expect(after(700, 0.07, 0.25)).toEqual({});
  });

  it("takes a tenant for no more than it could have had", () => {
    const share = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(share, share, (taken, heldBack) => {
        expect(wantedShare(taken, heldBack)).toBeGreaterThanOrEqual(taken);
        expect(wantedShare(taken, heldBack)).toBeLessThanOrEqual(Math.min(1, taken * 5 + 1e-9));
        expect(wantedShare(taken)).toBe(taken);
      }),
    );
  });

  it("makes no tenant heavy that is on its way back from being throttled", () => {
    const tenant = new Tenant({ ...LIMITS, isolateAfterSeconds: 300 });
    tenant.pass(150, 1);
    expect(tenant.part).toBe(1 / 8);
    tenant.pass(600, 0.01);
    expect(tenant.separations).toBe(0);
    expect(tenant.standing).toEqual({});
  });

  it("throttles nobody who is alone on a shard, and keeps a tenant heavy there while it takes much", () => {
    const tenant = new Tenant();
    tenant.pass(700, 1);
    tenant.hasNeighbours = false;
    tenant.pass(36_000, 1);
    expect(tenant.standing.throttle).toBeUndefined();
    expect(tenant.standing.heavySince).toBeDefined();
  });

  it("ends at once where there is none", () => {
    const before = { throttle: { part: 0.5, since: 0, changedAt: 0 }, heavySince: 0 };
    const seen = { share: 1, hasNeighbours: true };
    expect(nextStanding(1, before, seen, { ...LIMITS, budget: 0 })).toEqual({});
  });

  it("comes to rest under any load that lasts, within the budget where gateways can do it", () => {
    const budget = fc.double({ min: 0.05, max: 1, noNaN: true });
    const share = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(budget, share, share, (given, wanted, unthrottled) => {
        const tenant = new Tenant({ ...LIMITS, budget: given, isolateAfterSeconds: 0 });
        tenant.pass(1800, wanted, unthrottled);
        expect(tenant.changes).toBeLessThanOrEqual(2 * Math.log2(1 / LEAST_PART));
        const { changes } = tenant;
        tenant.pass(7200, wanted, unthrottled);
        expect(tenant.changes, "changes after it came to rest").toBe(changes);
        expect(tenant.share <= given * 1.001 || tenant.part === LEAST_PART).toBe(true);
      }),
    );
  });

  it("separates a tenant at most once in each time of calm, however its load comes and goes", () => {
    const stretch = fc.tuple(fc.integer({ min: 10, max: 3000 }), fc.double({ min: 0, max: 1, noNaN: true }));
    fc.assert(
      fc.property(fc.array(stretch, { minLength: 1, maxLength: 30 }), (story) => {
        const tenant = new Tenant();
        const begunAt = tenant.now;
        for (const [seconds, wanted] of story) {
          tenant.pass(seconds, wanted);
          // It has been moved away, or, where there was no room, has not.
          tenant.hasNeighbours = tenant.standing.heavySince === undefined || wanted > 0.5;
        }
        const cycles = Math.ceil((tenant.now - begunAt) / 1000 / (LIMITS.calmSeconds + LIMITS.isolateAfterSeconds));
        expect(tenant.separations).toBeLessThanOrEqual(cycles);
      }),
    );
  });
});
