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
import { afterEach, beforeEach, expect, it } from "vitest";
import { AuditFile, type AuditFileOptions } from "../../../src/platforms/local/audit-file.ts";
import { actionsOf, auditEntry, describeAuditLogContract } from "../../ports/audit-log-contract.ts";

let directory: string;
beforeEach(() => void (directory = mkdtempSync(join(tmpdir(), "audit-"))));
afterEach(() => rmSync(directory, { recursive: true }));

const file = () => join(directory, "audit.jsonl");
const open = (options: Partial<AuditFileOptions> = {}) =>
  new AuditFile(file(), { keepDays: () => 400, onProblem: () => {}, ...options });

describeAuditLogContract("one machine", async () => ({
  log: open({ bytes: 1000 }),
  reopened: async () => open({ bytes: 1000 }),
  tamper: async (change) => {
    const lines = readFileSync(file(), "utf8").trim().split("\n");
    writeFileSync(file(), `${change(lines).join("\n")}\n`);
  },
  close: async () => {},
}));

it("keeps entries in order over many files, readable by their owner only, and reads the newest of them", async () => {
  const log = open({ bytes: 500 });
  const written = Array.from({ length: 20 }, (_, n) => `action-${n}`);
  for (const action of written) log.append(auditEntry(action));
  expect(readdirSync(directory).length).toBeGreaterThan(3);
  expect(statSync(join(directory, "audit.jsonl")).mode & 0o777).toBe(0o600);
  expect(await actionsOf(log)).toEqual(written);
  expect(await actionsOf(log, 3)).toEqual(written.slice(-3));
  expect(await actionsOf(log, 0)).toEqual([]);
});

it("reads on after half a line that a crash left", async () => {
  open().append(auditEntry("before"));
  appendFileSync(file(), '{"time": "2026');
  const log = open();
  log.append(auditEntry("after"));
  expect(await actionsOf(log)).toEqual(["before", "after"]);
  expect(await log.verify()).toMatchObject({ entries: 2, breaks: [] });
});

it("says what it cannot write instead of failing the request", () => {
  const problems: string[] = [];
  const path = join(directory, "missing", "audit.jsonl");
  const options = { keepDays: () => 1, onProblem: (problem: string) => void problems.push(problem) };
  new AuditFile(path, options).append(auditEntry("lost"));
  expect(problems[0]).toContain('"action":"lost"');
});

it("removes a file when its newest entry is older than is wanted, and the chain of the rest holds", async () => {
  const log = open({ bytes: 500, keepDays: () => 2 });
  for (let n = 0; n < 6; n++) log.append(auditEntry(`old-${n}`));
  const longAgo = new Date(Date.now() - 3 * 86_400_000);
  for (const name of readdirSync(directory))
    if (name !== "audit.jsonl") utimesSync(join(directory, name), longAgo, longAgo);
  for (let n = 0; n < 6; n++) log.append(auditEntry(`new-${n}`));
  const kept = await actionsOf(log);
  expect(kept).not.toContain("old-0");
  expect(kept).toContain("new-0");
  expect(await log.verify()).toMatchObject({ entries: kept.length, breaks: [] });
});

it("begins its chain after entries from before there was one", async () => {
  appendFileSync(file(), `${JSON.stringify(auditEntry("old"))}\n`);
  const log = open();
  log.append(auditEntry("new"));
  expect(await log.verify()).toMatchObject({ entries: 2, unchained: 1, breaks: [] });
});
