import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { AuditEntry } from "../../src/api/audit.ts";
import { Refusals } from "../../src/api/audit-refusals.ts";
import { auditEntry } from "../ports/audit-log-contract.ts";
import { startApiUnderTest } from "./api-under-test.ts";

let kept: AuditEntry[];
let refusals: Refusals<AuditEntry>;
beforeEach(() => {
  vi.useFakeTimers();
  kept = [];
  refusals = new Refusals((entry) => kept.push(entry));
});
afterEach(() => void vi.useRealTimers());

const unknown = (action: string) => auditEntry(action, { actor: null, role: null, status: 401 });
const come = (count: number, from = 0) => {
  for (let number = from; number < from + count; number++) {
    const entry = unknown(`action-${number}`);
    if (refusals.admits(entry)) kept.push(entry);
  }
};

test("of those that nobody knows a few a minute have entries, and the last of the others says how many there were", () => {
  come(1000);
  expect(kept).toHaveLength(20);
  vi.advanceTimersByTime(60_000);
  expect(kept).toHaveLength(21);
  expect(kept.at(-1)).toEqual({ ...unknown("action-999"), omitted: 979 });
  come(21, 1000);
  vi.advanceTimersByTime(60_000);
  expect(kept.at(-1)).toEqual(unknown("action-1020"));
  vi.advanceTimersByTime(600_000);
  expect(kept).toHaveLength(42);
});

test("what people do has its entry at any time, also what they may not do", () => {
  come(1000);
  for (const status of [201, 403, 404]) expect(refusals.admits(auditEntry("theirs", { status }))).toBe(true);
  expect(refusals.admits(auditEntry("signIn", { actor: null, role: null, status: 201 }))).toBe(true);
});

test("the log of an API that somebody floods has room for what people do", async () => {
  vi.useRealTimers();
  const api = await startApiUnderTest();
  try {
    await Promise.all(Array.from({ length: 50 }, () => api.request("/v1/tenants", { token: "wrong" })));
    await api.request("/v1/tenants/nobody/sleep", { method: "POST" });
    expect(api.audited.filter(({ status }) => status === 401)).toHaveLength(20);
    expect(api.audited.at(-1)).toMatchObject({ action: "sleepTenant", status: 404 });
  } finally {
    await api.close();
  }
});
