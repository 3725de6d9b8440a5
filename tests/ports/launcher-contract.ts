import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Launcher } from "../../src/ports/launcher.ts";
import type { ShardState } from "../../src/ports/shard-control.ts";
import { until } from "../support/patience.ts";

/** What a platform brings to the contract's tests. */
export interface Platform {
  launcher: Launcher;
  version: string;
  /** Whether a process that ended is started again without being asked for. */
  startsAgain: boolean;
  /** Another launcher of the same shards, as the next controller has it. */
  another(): Promise<Launcher>;
  /** Ends a shard's process behind the launcher's back, as the kernel does where memory is short. */
  crash(shard: string): Promise<void>;
  close(): Promise<void>;
}

/** What every launcher does (the comment of `Launcher`). */
export function describeLauncherContract(name: string, open: () => Promise<Platform>): void {
  describe(`launcher contract: ${name}`, () => {
    let platform: Platform;
    let launcher: Launcher;
    let shard: string;
    beforeAll(async () => {
      platform = await open();
      ({ launcher } = platform);
      shard = `${platform.version}-0`;
    }, 480_000);
    afterAll(() => platform?.close());

    it("a shard that does not exist is absent", async () => {
      expect(await launcher.observe(shard)).toEqual({ state: "absent" });
      await launcher.stop(shard, 1);
      await launcher.kill(shard);
      await launcher.remove(shard);
    });

    it("starting a shard that runs, or is about to, does nothing", async () => {
      await launcher.start(shard, platform.version);
      expect((await launcher.observe(shard)).state).not.toBe("absent");
      await launcher.start(shard, platform.version);
      const first = await untilAnswers(launcher, shard);
      expect(first).toMatchObject({ name: shard, release: platform.version, tenants: [] });
      expect(first.schemaVersion).toBeGreaterThanOrEqual(first.schemaCompatVersion);
      await launcher.start(shard, platform.version);
      expect((await stateOf(launcher, shard)).instance).toBe(first.instance);
    });

    it("a shard outlives its controller, and the next one finds it", async () => {
      const before = await stateOf(launcher, shard);
      const next = await platform.another();
      expect((await stateOf(next, shard)).instance).toBe(before.instance);
    });

    it("reads a shard's log", async () => {
      const all = await collect(launcher.log(shard, {}));
      expect(all.some((line) => line.includes(`shard ${shard}`) && line.includes("is controlled at"))).toBe(true);
      expect(await collect(launcher.log(shard, { tail: 2 }))).toEqual(all.slice(-2));
      const enough = new AbortController();
      const followed = collect(launcher.log(shard, { tail: 1, follow: true, signal: enough.signal }));
      setTimeout(() => enough.abort(), 1500);
      expect((await followed).length).toBeGreaterThanOrEqual(1);
    });

    it("does not remove what a running shard needs", async () => {
      await expect(launcher.remove(shard)).rejects.toThrow(/still runs/);
      expect((await stateOf(launcher, shard)).name).toBe(shard);
    });

    it("sees a crash, and tells the next process from it", async () => {
      const before = await stateOf(launcher, shard);
      const told: string[] = [];
      const unhear = launcher.onEnded?.((ended) => told.push(ended));
      await platform.crash(shard);
      // Only where nothing else starts it again does the next process wait for this.
      await until("it is told", async () => platform.startsAgain || told.includes(shard));
      unhear?.();
      await expect.poll(() => gone(launcher, shard, before.instance), { interval: 200 }).toBe(true);
      if (!platform.startsAgain) await launcher.start(shard, platform.version);
      expect((await untilAnswers(launcher, shard)).instance).not.toBe(before.instance);
    });

    it("kills a hung process at once", async () => {
      const before = await stateOf(launcher, shard);
      await launcher.kill(shard);
      await expect.poll(() => gone(launcher, shard, before.instance), { interval: 200 }).toBe(true);
      if (!platform.startsAgain) await launcher.start(shard, platform.version);
      expect((await untilAnswers(launcher, shard)).instance).not.toBe(before.instance);
    });

    it("stops a shard, and starts it again", async () => {
      const before = await stateOf(launcher, shard);
      await launcher.stop(shard, 30);
      expect(await launcher.observe(shard)).toEqual({ state: "absent" });
      await launcher.start(shard, platform.version);
      expect((await untilAnswers(launcher, shard)).instance).not.toBe(before.instance);
    });

    it("removes everything of a shard", async () => {
      await launcher.stop(shard, 30);
      await launcher.remove(shard);
      expect(await launcher.observe(shard)).toEqual({ state: "absent" });
      await expect(launcher.client(shard, "http://127.0.0.1:1")).rejects.toThrow(/./);
    });
  });
}

/** Waits until the shard answers. @returns what it says of itself */
export function untilAnswers(launcher: Launcher, shard: string): Promise<ShardState> {
  return until(`shard ${shard} answers`, () => stateOf(launcher, shard));
}

export async function stateOf(launcher: Launcher, shard: string): Promise<ShardState> {
  const seen = await launcher.observe(shard);
  if (seen.state !== "running") throw new Error(`shard ${shard} is ${JSON.stringify(seen)}`);
  const client = await launcher.client(shard, seen.address);
  try {
    return await client.state();
  } finally {
    await client.close();
  }
}

async function gone(launcher: Launcher, shard: string, instance: string): Promise<boolean> {
  return (await stateOf(launcher, shard).catch(() => undefined))?.instance !== instance;
}

async function collect(lines: AsyncIterable<string>): Promise<string[]> {
  const all: string[] = [];
  for await (const line of lines) all.push(line);
  return all;
}
