import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { AuditEntry } from "../../src/api/audit.ts";
import { Refusals } from "../../src/api/audit-refusals.ts";
import { auditEntry } from "../ports/audit-log-contract.ts";
import { startApiUnderTest } from "./api-under-test.ts";
import { MemoryService } from "./memory-service.ts";

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

test("what people do has its entry at any time, and at first also what they may not do", () => {
  come(1000);
  const theirs = (status: number) => auditEntry("theirs", { role: "operator", status });
  for (const status of [201, 403, 404]) expect(refusals.admits(theirs(status))).toBe(true);
  for (let count = 0; count < 100; count++) refusals.admits(theirs(404));
  expect(refusals.admits(theirs(404))).toBe(false);
  // The second may have been done in part.
  for (const status of [200, 500]) expect(refusals.admits(theirs(status))).toBe(true);
  for (let count = 0; count < 100; count++) expect(refusals.admits(auditEntry("anything", { status: 404 }))).toBe(true);
  expect(refusals.admits(auditEntry("signIn", { actor: null, role: null, status: 201 }))).toBe(true);
});

test("each caller's are counted apart", () => {
  const by = (actor: string) => auditEntry("theirs", { actor, role: "viewer", status: 403 });
  const admitted = (actor: string, count: number) =>
    Array.from({ length: count }, () => refusals.admits(by(actor))).filter(Boolean).length;
  expect([admitted("eve", 50), admitted("bob", 5), admitted("mallory", 21)]).toEqual([20, 5, 20]);
  vi.advanceTimersByTime(60_000);
  expect(kept).toEqual([{ ...by("eve"), omitted: 29 }, by("mallory")]);
  expect(admitted("eve", 30)).toBe(20);
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

test("a tenant admin makes so many changes a minute, each with an entry, and no more; what is refused is short", async () => {
  vi.useRealTimers();
  vi.useFakeTimers({ toFake: ["Date"], now: Date.UTC(2026, 0, 1, 0, 0, 30) });
  const service = new MemoryService();
  service.addTenant("ours", {}, "").spec.labels = { customer: "us" };
  const api = await startApiUnderTest(service);
  try {
    const token = api.namedTokens.create("reseller", "tenant-admin", { tenants: "customer=us" });
    const change = async (size: number) => {
      const body = JSON.stringify({ config: `max_upload_size: ${size}M\n` });
      return (await api.request("/v1/tenants/ours", { method: "PATCH", token, body })).status;
    };
    const statuses: number[] = [];
    for (let size = 1; size <= 125; size++) statuses.push(await change(size));
    expect(statuses).toEqual([...Array(120).fill(200), ...Array(5).fill(429)]);
    expect(api.audited.filter(({ status, changes }) => status === 200 && changes?.length === 1)).toHaveLength(120);
    expect(service.tenants.get("ours")?.spec.config).toBe("max_upload_size: 120M\n");
    vi.setSystemTime(Date.UTC(2026, 0, 1, 0, 1, 30));
    expect(await change(126)).toBe(200);
    // One long change, whose entry is whole, is as many short ones.
    const options = Array.from({ length: 100 }, (_, n) => `option${n}: ${"x".repeat(900)}`);
    const long = { method: "PATCH", token, body: JSON.stringify({ config: options.join("\n") }) };
    expect((await api.request("/v1/tenants/ours", long)).status).toBe(200);
    expect(api.audited.at(-1)?.changes).toHaveLength(101);
    vi.setSystemTime(Date.UTC(2026, 0, 1, 0, 2, 0));
    expect(await change(127)).toBe(429);
    vi.setSystemTime(Date.UTC(2026, 0, 1, 0, 5, 0));
    expect(await change(128)).toBe(200);
    await api.request(`/v1/fleet?x=${"x".repeat(2000)}`, { token });
    expect(api.audited.at(-1)).toMatchObject({ status: 403, actor: "reseller" });
    expect(api.audited.at(-1)!.path).toHaveLength(200);
  } finally {
    await api.close();
  }
});
