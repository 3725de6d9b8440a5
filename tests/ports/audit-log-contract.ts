import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { AuditEntry, AuditLog } from "../../src/api/audit.ts";

export interface AuditUnderTest {
  log: AuditLog;
  /** As a process finds it that starts after this one was killed. */
  reopened(): Promise<AuditLog>;
  /** As somebody does who may write where it is kept: to the newest lines, of which there are few. */
  tamper(change: (lines: string[]) => string[]): Promise<void>;
  close(): Promise<void>;
}

export function auditEntry(action: string, more: Partial<AuditEntry> = {}): AuditEntry {
  const who = { actor: "ada", role: "admin", client: "127.0.0.1" } as const;
  const what = { method: "POST", path: "/v1/tenants", status: 201 };
  return { time: "2026-11-27T00:00:00.000Z", ...who, action, ...what, ...more };
}

export async function actionsOf(log: AuditLog, tail?: number): Promise<string[]> {
  const found: string[] = [];
  for await (const { action } of log.read({ tail })) found.push(action);
  return found;
}

/** What all that keeps an audit log does (the comments of `AuditLog`). @param open with parts so small that a few entries take several */
export function describeAuditLogContract(name: string, open: () => Promise<AuditUnderTest>): void {
  describe(`${name} as an audit log`, () => {
    let here: AuditUnderTest;
    beforeEach(async () => void (here = await open()));
    afterEach(() => here.close());

    it("keeps entries in order, in as many parts as they take, and reads the newest of them", async () => {
      const written = Array.from({ length: 25 }, (_, n) => `action-${n}`);
      for (const action of written) expect(await here.log.append(auditEntry(action))).toBe(true);
      for (const log of [here.log, await here.reopened()]) {
        expect(await actionsOf(log)).toEqual(written);
        for (const tail of [0, 1, 3, 24, 25, 1000])
          expect(await actionsOf(log, tail)).toEqual(tail === 0 ? [] : written.slice(-tail));
        expect(await log.verify()).toMatchObject({ entries: 25, unchained: 0, breaks: [] });
      }
    });

    it("gives back what was written, with all that was changed", async () => {
      const changes = [{ field: "config.motd", before: null, after: "Grüße\n\u2028😀" }];
      await here.log.append(auditEntry("updateTenant", { actor: null, role: null, changes }));
      const found: AuditEntry[] = [];
      for await (const entry of (await here.reopened()).read({})) found.push(entry);
      expect(found).toEqual([{ ...auditEntry("updateTenant", { actor: null, role: null, changes }), previous: "" }]);
    });

    it("keeps the order of those that come at once", async () => {
      const written = Array.from({ length: 40 }, (_, n) => `action-${n}`);
      const kept = await Promise.all(written.map(async (action) => here.log.append(auditEntry(action))));
      expect(new Set(kept)).toEqual(new Set([true]));
      expect(await actionsOf(here.log)).toEqual(written);
      expect(await here.log.verify()).toMatchObject({ entries: 40, breaks: [] });
    });

    it("is one chain over restarts, which ends in the same head until something is written", async () => {
      await here.log.append(auditEntry("first"));
      const second = await here.reopened();
      await second.append(auditEntry("second"));
      const { head, ...found } = await second.verify();
      expect(found).toEqual({ entries: 2, unchained: 0, breaks: [] });
      const third = await here.reopened();
      expect((await third.verify()).head).toBe(head);
      await third.append(auditEntry("third"));
      expect((await third.verify()).head).not.toBe(head);
    });

    it("is empty before anything was written", async () => {
      expect(await actionsOf(here.log)).toEqual([]);
      expect(await here.log.verify()).toEqual({ entries: 0, head: "", unchained: 0, breaks: [] });
    });

    it.each<[string, (lines: string[]) => string[]]>([
      ["changed", ([a, b, ...rest]) => [a!, b!.replace("ada", "eve"), ...rest]],
      ["removed", ([a, , ...rest]) => [a!, ...rest]],
      ["put in", ([a, b, ...rest]) => [a!, b!, b!, ...rest]],
      ["swapped", ([a, b, c, ...rest]) => [a!, c!, b!, ...rest]],
      ["stripped of its hash", ([a, b, ...rest]) => [a!, b!.replace(/,"previous":"[^"]*"/, ""), ...rest]],
    ])("shows where an entry was %s", async (_what, change) => {
      for (const action of ["a", "b", "c"]) await here.log.append(auditEntry(action));
      await here.tamper(change);
      const again = await here.reopened();
      expect((await again.verify()).breaks).not.toEqual([]);
      // What comes then does not hide it.
      await again.append(auditEntry("after"));
      expect((await again.verify()).breaks).not.toEqual([]);
      expect((await actionsOf(again)).at(-1)).toBe("after");
    });
  });
}
