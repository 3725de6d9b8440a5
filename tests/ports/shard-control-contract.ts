import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ShardRefusal, ShardUnreachable, type Assignment, type ShardControl } from "../../src/ports/shard-control.ts";

/** A shard that runs, and what brings it down. */
export interface ShardUnderTest {
  control: ShardControl;
  name: string;
  release: string;
  /** An assignment that it can start, with an epoch. Absent where there is no database for tenants: then nothing is started. */
  assignment?(tenant: string, epoch: number): Assignment;
  /** Ends its process. */
  end(): Promise<void>;
  close(): Promise<void>;
}

/** What every way to a shard does (the comment of `ShardControl`; docs/control-api.md). */
export function describeShardControlContract(name: string, open: () => Promise<ShardUnderTest>): void {
  describe(`shard control contract: ${name}`, () => {
    let shard: ShardUnderTest;
    let control: ShardControl;
    beforeEach(async () => {
      shard = await open();
      ({ control } = shard);
    });
    afterEach(() => shard.close());

    const code = (call: Promise<unknown>) =>
      call.then(
        () => "ok",
        (error: unknown) => (error instanceof ShardRefusal ? error.code : error),
      );

    it("tells what the shard is, and which run of it", async () => {
      const state = await control.state();
      expect(state).toMatchObject({ name: shard.name, release: shard.release, tenants: [] });
      expect((await control.state()).instance).toBe(state.instance);
      expect(state.schemaVersion).toBeGreaterThanOrEqual(state.schemaCompatVersion);
    });

    it("finds nothing wrong with the stop of a tenant that is not there", async () => {
      expect(await control.stopTenant("a", 0)).toMatchObject({ absent: true, released: false });
    });

    it("tells how busy it is", async () => {
      const { process, tenants } = await control.load();
      expect(process.cpuSeconds).toBeGreaterThanOrEqual(0);
      expect(tenants).toEqual({});
    });

    it("refuses what only a tenant can answer that runs there", async () => {
      expect(await code(control.idle("a"))).toBe("NotFound");
      expect(await code(control.greet("a", 60))).toBe("NotFound");
      expect(await code(control.changeUser("a", "ada", { kind: "admin", admin: true }))).toBe("NotFound");
      expect(await code(control.openSession("a", "ada", 60))).toBe("NotFound");
      expect(await code(control.pingAppService("a", "bridge"))).toBe("NotFound");
      expect(await code(control.metricsOf("a"))).toBe("NotFound");
      expect(await code(control.endSessions("a", [{ user: "ada", until: 1 }]))).toBe("NotFound");
    });

    it("says that the shard does not answer when its process has ended", async () => {
      await shard.end();
      for (const call of [() => control.state(), () => control.stopTenant("a", 0)])
        await expect(call()).rejects.toBeInstanceOf(ShardUnreachable);
    });

    it("starts a tenant once for an epoch, and refuses another epoch while it runs", async ({ skip }) => {
      if (!shard.assignment) return skip();
      const first = await control.startTenant("a", shard.assignment("a", 5));
      expect(first).toMatchObject({ name: "a", epoch: 5, phase: "running", address: expect.any(String) });
      expect(await control.startTenant("a", shard.assignment("a", 5))).toEqual(first);
      expect(await code(control.startTenant("a", shard.assignment("a", 4)))).toBe("StaleEpoch");
      expect(await code(control.startTenant("a", shard.assignment("a", 6)))).toBe("AlreadyRunning");
      expect((await control.state()).tenants).toMatchObject([{ name: "a", epoch: 5 }]);
    });

    it("refuses an epoch that is spent, and takes the next one", async ({ skip }) => {
      if (!shard.assignment) return skip();
      await control.startTenant("a", shard.assignment("a", 5));
      expect(await control.stopTenant("a", 0)).toMatchObject({ absent: false, released: false });
      expect((await control.state()).tenants).toEqual([]);
      expect(await code(control.startTenant("a", shard.assignment("a", 4)))).toBe("Fenced");
      expect(await control.startTenant("a", shard.assignment("a", 6))).toMatchObject({ epoch: 6 });
    });

    it("tells the last figures of what it stops, and begins them again with its next start", async ({ skip }) => {
      if (!shard.assignment) return skip();
      const run = async () => (await control.load()).tenants["a"]?.run;
      await control.startTenant("a", shard.assignment("a", 5));
      const first = await run();
      expect(first).toBeTruthy();
      expect((await control.stopTenant("a", 0)).used).toMatchObject({ run: first, requests: expect.any(Number) });
      expect((await control.stopTenant("a", 0)).used ?? undefined).toBeUndefined();
      await control.startTenant("a", shard.assignment("a", 6));
      expect(await run()).not.toBe(first);
    });

    it("says what a configuration means without starting anything", async ({ skip }) => {
      if (!shard.assignment) return skip();
      const { meaning, warnings } = await control.checkTenant("a", shard.assignment("a", 1));
      expect(warnings).toEqual([]);
      expect(meaning).toMatchObject({ database: null, hosts: ["a.example"] });
      expect((await control.state()).tenants).toEqual([]);
    });

    it("releases the database of what it ran where nobody is to have it next", async ({ skip }) => {
      if (!shard.assignment) return skip();
      await control.startTenant("a", shard.assignment("a", 5));
      expect(await control.stopTenant("a", 0, { release: true })).toMatchObject({ absent: false, released: true });
    });
  });
}
