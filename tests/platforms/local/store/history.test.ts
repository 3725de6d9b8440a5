import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { MemoryHistory } from "../../../../src/controller/history/memory-history.ts";
import { LocalHistory } from "../../../../src/platforms/local/store/local-history.ts";
import { describeHistoryStoreContract } from "../../../ports/history-store-contract.ts";

describeHistoryStoreContract("A file of one machine", async () => {
  const directory = mkdtempSync(join(tmpdir(), "history-"));
  const store = new LocalHistory(join(directory, "history.db"));
  return {
    store,
    close: async () => {
      await store.close();
      rmSync(directory, { recursive: true });
    },
  };
});

describeHistoryStoreContract("Memory", async () => ({ store: new MemoryHistory(), close: async () => {} }));

describe("the file of a history", () => {
  let directory: string;
  let file: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "history-"));
    file = join(directory, "history.db");
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  test("is its owner's alone, and has what was written after a restart, also of a process that was killed", async () => {
    const killed = new LocalHistory(file);
    await killed.write([{ step: 60_000, at: 60_000, count: 1, values: { load: 0.5 } }]);
    const next = new LocalHistory(file);
    expect(await next.read(60_000, 0, 120_000)).toEqual([{ at: 60_000, count: 1, values: { load: 0.5 } }]);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    await next.close();
    await killed.close();
  });

  test("is put aside where it is damaged, and begins again", async () => {
    writeFileSync(file, "this is no database, and never was one".repeat(100));
    const warnings: string[] = [];
    const store = new LocalHistory(file, (sentence) => warnings.push(sentence));
    await store.write([{ step: 60_000, at: 60_000, count: 1, values: { load: 0.5 } }]);
    expect(await store.last(60_000)).toBe(60_000);
    await store.close();
    expect(warnings).toEqual([expect.stringContaining("history.db.damaged")]);
    expect(readdirSync(directory)).toContain("history.db.damaged");
  });

  test("stays where it is where it cannot be opened, and plots go on in memory", async () => {
    mkdirSync(file);
    const warnings: string[] = [];
    const store = new LocalHistory(file, (sentence) => warnings.push(sentence));
    await store.write([{ step: 60_000, at: 60_000, count: 1, values: { load: 0.5 } }]);
    expect(await store.last(60_000)).toBe(60_000);
    await store.close();
    expect(warnings).toEqual([expect.stringContaining("cannot be opened (unable to open database file)")]);
    expect(readdirSync(directory)).toEqual(["history.db"]);
  });
});
