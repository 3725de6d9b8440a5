import { expect, it } from "vitest";
import { mentions } from "../../../src/controller/service/store-cluster-service.ts";

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
