import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { AuditEntry } from "../../../src/api/audit.ts";
import { AuditFile, type AuditFileOptions } from "../../../src/platforms/local/audit-file.ts";

let directory: string;
beforeEach(() => void (directory = mkdtempSync(join(tmpdir(), "audit-"))));
afterEach(() => rmSync(directory, { recursive: true }));

const file = () => join(directory, "audit.jsonl");
const open = (options: Partial<AuditFileOptions> = {}) =>
  new AuditFile(file(), { keepDays: () => 400, onProblem: () => {}, ...options });

const entry = (action: string): AuditEntry => ({
  time: "2026-11-27T00:00:00.000Z",
  actor: "ada",
  role: "admin",
  action,
  method: "POST",
  path: "/v1/tenants",
  status: 201,
  client: "127.0.0.1",
});

async function actions(log: AuditFile, tail?: number): Promise<string[]> {
  const found: string[] = [];
  for await (const { action } of log.read({ tail })) found.push(action);
  return found;
}

it("keeps entries in order over many files, readable by their owner only, and reads the newest of them", async () => {
  const log = open({ bytes: 500 });
  const written = Array.from({ length: 20 }, (_, n) => `action-${n}`);
  for (const action of written) log.append(entry(action));
  expect(readdirSync(directory).length).toBeGreaterThan(3);
  expect(statSync(join(directory, "audit.jsonl")).mode & 0o777).toBe(0o600);
  expect(await actions(log)).toEqual(written);
  expect(await actions(log, 3)).toEqual(written.slice(-3));
  expect(await actions(log, 0)).toEqual([]);
});

it("reads on after half a line that a crash left", async () => {
  open().append(entry("before"));
  appendFileSync(file(), '{"time": "2026');
  const log = open();
  log.append(entry("after"));
  expect(await actions(log)).toEqual(["before", "after"]);
  expect(await log.verify()).toMatchObject({ entries: 2, breaks: [] });
});

it("says what it cannot write instead of failing the request", () => {
  const problems: string[] = [];
  const path = join(directory, "missing", "audit.jsonl");
  const options = { keepDays: () => 1, onProblem: (problem: string) => void problems.push(problem) };
  new AuditFile(path, options).append(entry("lost"));
  expect(problems[0]).toContain('"action":"lost"');
});

it("removes a file when its newest entry is older than is wanted, and the chain of the rest holds", async () => {
  const log = open({ bytes: 500, keepDays: () => 2 });
  for (let n = 0; n < 6; n++) log.append(entry(`old-${n}`));
  const longAgo = new Date(Date.now() - 3 * 86_400_000);
  for (const name of readdirSync(directory))
    if (name !== "audit.jsonl") utimesSync(join(directory, name), longAgo, longAgo);
  for (let n = 0; n < 6; n++) log.append(entry(`new-${n}`));
  const kept = await actions(log);
  expect(kept).not.toContain("old-0");
  expect(kept).toContain("new-0");
  expect(await log.verify()).toMatchObject({ entries: kept.length, breaks: [] });
});

describe("the chain", () => {
  const written = async (change: (lines: string[]) => string[]) => {
    const log = open();
    for (const action of ["a", "b", "c", "d"]) log.append(entry(action));
    const lines = readFileSync(file(), "utf8").trim().split("\n");
    writeFileSync(file(), `${change(lines).join("\n")}\n`);
    return open().verify();
  };

  it("holds over restarts, and ends in the same head until something is written", async () => {
    open().append(entry("first"));
    const second = open();
    second.append(entry("second"));
    const found = await second.verify();
    expect(found).toMatchObject({ entries: 2, unchained: 0, breaks: [] });
    expect((await open().verify()).head).toBe(found.head);
    second.append(entry("third"));
    expect((await second.verify()).head).not.toBe(found.head);
  });

  it.each<[string, (lines: string[]) => string[], number]>([
    ["changed", ([a, b, ...rest]) => [a!, b!.replace("ada", "eve"), ...rest], 3],
    ["removed", ([a, , ...rest]) => [a!, ...rest], 2],
    ["put in", ([a, b, ...rest]) => [a!, b!, b!, ...rest], 3],
    ["swapped", ([a, b, c, d]) => [a!, c!, b!, d!], 2],
    ["stripped of its hash", ([a, b, ...rest]) => [a!, b!.replace(/,"previous":"[^"]*"/, ""), ...rest], 2],
  ])("breaks where an entry is %s", async (_what, change, at) => {
    const { breaks } = await written(change);
    expect(breaks[0]?.entry).toBe(at);
  });

  it("begins after entries from before there was one", async () => {
    appendFileSync(file(), `${JSON.stringify(entry("old"))}\n`);
    const log = open();
    log.append(entry("new"));
    expect(await log.verify()).toMatchObject({ entries: 2, unchained: 1, breaks: [] });
  });
});
