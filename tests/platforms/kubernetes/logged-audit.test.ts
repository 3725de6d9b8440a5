import { PassThrough } from "node:stream";
import { pino } from "pino";
import { expect, it } from "vitest";
import { LoggedAudit } from "../../../src/platforms/kubernetes/logged-audit.ts";

it("writes each entry to the log as one line, and shows the newest", async () => {
  const lines: string[] = [];
  const sink = new PassThrough().on("data", (chunk: Buffer) => lines.push(chunk.toString()));
  const audit = new LoggedAudit(pino(sink));
  const base = { actor: "ada", role: "admin", method: "POST", path: "/v1/x", status: 200, client: "::1" } as const;
  for (const action of ["first", "second"]) audit.append({ ...base, time: "2026-11-27T00:00:00.000Z", action });
  const shown = [];
  for await (const entry of audit.read({ tail: 1 })) shown.push(entry.action);
  expect(shown).toEqual(["second"]);
  expect(lines.map((line) => JSON.parse(line) as object)).toMatchObject([
    { msg: "audit", audit: { action: "first", actor: "ada" } },
    { msg: "audit", audit: { action: "second" } },
  ]);
});
