import { appendFileSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { AuditEntry } from "../../../src/api/audit.ts";
import { AuditFile } from "../../../src/platforms/local/audit-file.ts";

let directory: string;
beforeEach(() => void (directory = mkdtempSync(join(tmpdir(), "audit-"))));
afterEach(() => rmSync(directory, { recursive: true }));

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
  const log = new AuditFile(join(directory, "audit.jsonl"), () => {}, 500);
  const written = Array.from({ length: 20 }, (_, n) => `action-${n}`);
  for (const action of written) log.append(entry(action));
  expect(readdirSync(directory).length).toBeGreaterThan(3);
  expect(statSync(join(directory, "audit.jsonl")).mode & 0o777).toBe(0o600);
  expect(await actions(log)).toEqual(written);
  expect(await actions(log, 3)).toEqual(written.slice(-3));
  expect(await actions(log, 0)).toEqual([]);
});

it("reads on after half a line that a crash left", async () => {
  const file = join(directory, "audit.jsonl");
  const log = new AuditFile(file, () => {});
  log.append(entry("before"));
  appendFileSync(file, '{"time": "2026\n');
  log.append(entry("after"));
  expect(await actions(log)).toEqual(["before", "after"]);
});

it("says what it cannot write instead of failing the request", () => {
  const problems: string[] = [];
  new AuditFile(join(directory, "missing", "audit.jsonl"), (problem) => problems.push(problem)).append(entry("lost"));
  expect(problems[0]).toContain('"action":"lost"');
});
