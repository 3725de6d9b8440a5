import { expect, it } from "vitest";
import { isLineOf, mentions } from "../../../src/controller/service/tenant-lines.ts";
import type { Tenant } from "../../../src/model/tenant.ts";

it("tells a server's lines from those of servers whose names end or begin like its own", () => {
  const mine = mentions("a.example");
  for (const line of [
    '{"server_name": "a.example"}',
    "@alice:a.example sent a message",
    "a.example: started",
    "asks https://a.example/_matrix",
    "joined a room of a.example.",
  ])
    expect(mine(line), line).toBe(true);
  for (const line of ["ba.example", "x.a.example", "b-a.example", "a.example.org", "a.example:8448", "a-example"])
    expect(mine(line), line).toBe(false);
  expect(mentions("[::1]:8448")("from [::1]:8448 now")).toBe(true);
});

it("tells what a tenant's own homeserver wrote from what others wrote about it, or an earlier one of that name", () => {
  const tenant = { spec: { serverName: "a.example" }, metadata: { creationTimestamp: "2026-11-24T10:00:00.000Z" } };
  const mine = isLineOf(tenant as Tenant);
  const time = "2026-11-24T10:00:01.000+00:00";
  const line = (entry: object) => JSON.stringify({ time, level: "INFO", message: "asks https://a.example", ...entry });
  expect(mine(line({ serverName: "a.example" }))).toBe(true);
  for (const entry of [
    { serverName: "b.example", message: "203.0.113.9 - {@bob:b.example} GET /rooms/!x:a.example" },
    { serverName: null },
    {},
    { serverName: "a.example", time: "2026-11-24T09:59:59.000+00:00" },
    { serverName: "a.example", time: "soon" },
  ])
    expect([entry, mine(line(entry))]).toEqual([entry, false]);
  for (const text of ["a.example: started", '{"serverName": "a.example"', "null"]) expect(mine(text)).toBe(false);
});
