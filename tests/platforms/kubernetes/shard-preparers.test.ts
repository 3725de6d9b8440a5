import { beforeEach, describe, expect, test } from "vitest";
import { ShardPreparers } from "../../../src/platforms/kubernetes/shard-preparers.ts";
import type { Launcher } from "../../../src/ports/launcher.ts";
import {
  ShardRefusal,
  ShardUnreachable,
  type PreparerCalls,
  type PreparerState,
  type ShardControl,
} from "../../../src/ports/shard-control.ts";
import { LocalStore } from "../../../src/platforms/local/store/local-store.ts";

const READY = {
  state: "ready",
  event: { event: "ready", release: "1", schemaVersion: 1, schemaCompatVersion: 1 },
};
const DATABASE = { host: "h", port: 1, user: "u", password: "the-secret", dbname: "d" };
const VERSION = "1.163.2";

/** A shard that answers as the test says; the real one is in tests/platforms/kubernetes/launcher/tenants.test.ts. */
class ScriptedShard implements PreparerCalls {
  full = 0;
  states: (PreparerState | Error)[] = [READY as PreparerState];
  readonly ended: string[] = [];
  closed = 0;

  async create(): Promise<string> {
    if (this.full-- > 0) throw new ShardRefusal(429, "TooManyPreparers", "2 preparers are at work here already");
    return "one";
  }
  async state(_id: string, not: PreparerState["state"]): Promise<PreparerState> {
    const next = this.states.length > 1 ? this.states.shift() : this.states[0];
    if (next instanceof Error) throw next;
    return next ?? { state: not, event: null };
  }
  async command(): Promise<void> {}
  async end(id: string): Promise<void> {
    this.ended.push(id);
  }
}

let shard: ScriptedShard;
let preparers: ShardPreparers;
const asked: string[] = [];
beforeEach(async () => {
  shard = new ScriptedShard();
  asked.length = 0;
  const store = new LocalStore(":memory:");
  for (const [name, phase, load] of [
    ["busy", "Ready", 0.9],
    ["idle", "Ready", 0.1],
    ["failed", "Failed", 0],
  ] as const)
    await store.create(
      "Shard",
      name,
      { release: VERSION },
      { phase, reason: "", message: "", failures: 0, address: `http://${name}`, load },
    );
  const control = { preparers: shard, close: async () => void shard.closed++ } as unknown as ShardControl;
  const client = async (name: string) => {
    asked.push(name);
    return control;
  };
  preparers = new ShardPreparers(store, { client } as unknown as Launcher);
});

describe("preparers in shards", () => {
  test("asks the least busy shard that answers, and waits for a place", async () => {
    shard.full = 2;
    const preparer = await preparers.start(VERSION);
    expect(asked).toEqual(["idle"]);
    shard.states = [{ state: "ready", event: { event: "done", seconds: 2, from: null, to: 93 } }];
    expect(await preparer.template(DATABASE)).toEqual({ seconds: 2, from: null, to: 93 });
    await preparer.close();
    await preparer.close();
    expect([shard.ended, shard.closed]).toEqual([["one"], 1]);
  });

  test("ends a preparer that does not get ready", async () => {
    shard.states = [{ state: "ended", event: { event: "error", code: "UnsupportedRelease", message: "too old" } }];
    await expect(preparers.start(VERSION)).rejects.toMatchObject({ name: "PreparerError", code: "UnsupportedRelease" });
    expect([shard.ended, shard.closed]).toEqual([["one"], 1]);
  });

  test("bounds the wait for a preparer, and says nothing secret", async () => {
    const preparer = await preparers.start(VERSION, 1);
    shard.states = [{ state: "working", event: null }];
    await expect(preparer.template(DATABASE)).rejects.toMatchObject({ code: "Timeout" });
    shard.states = [new ShardUnreachable("idle", new Error("ECONNRESET"))];
    const failure: unknown = await preparer.template(DATABASE).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "Unavailable" });
    expect(String(failure)).not.toContain("the-secret");
    await preparer.close();
  });
});
