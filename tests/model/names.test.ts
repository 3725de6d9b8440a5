import { assert, domain, integer, pre, property } from "fast-check";
import { expect, it } from "vitest";
import { hostOf, serverNameProblem, tenantNameProblem } from "../../src/model/names.ts";

it.each(["a", "clinic-a", "0", "x".repeat(63)])("accepts the tenant name %s", (name) => {
  expect(tenantNameProblem(name)).toBeUndefined();
});

it.each(["", "-a", "a-", "A", "a.b", "a_b", "a b", "ä", "x".repeat(64), "a\n", "../a"])(
  "refuses the tenant name %j",
  (name) => {
    expect(tenantNameProblem(name)).toMatch(/DNS label/);
  },
);

it.each(["example.org", "a.localhost:8448", "1.2.3.4", "1.2.3.4:80", "[::1]", "[2001:db8::1]:8448", "localhost"])(
  "accepts the server name %s",
  (name) => expect(serverNameProblem(name)).toBeUndefined(),
);

it.each([
  ["", /HOST/],
  ["example.org:", /HOST/],
  ["example.org:0", /port/],
  ["example.org:65536", /port/],
  ["Example.org", /upper-case/],
  ["exa mple.org", /DNS label/],
  ["a..b", /DNS label/],
  ["1.2.3.999", /IPv4/],
  ["[::1", /HOST/],
  ["[zz]", /HOST/],
  ["[1:2]", /IPv6/],
  ["a/b", /DNS label/],
  ["a@b", /DNS label/],
  [`${"a.".repeat(120)}org`, /230/],
])("refuses the server name %j", (name, why) => {
  expect(serverNameProblem(name)).toMatch(why);
});

it("accepts one spelling of each host: lower case, whatever the port", () => {
  assert(
    property(domain(), integer({ min: 1, max: 65535 }), (name, port) => {
      const host = name.toLowerCase();
      pre(serverNameProblem(host) === undefined);
      expect(serverNameProblem(`${host}:${port}`)).toBeUndefined();
      expect(hostOf(`${host}:${port}`)).toBe(host);
    }),
  );
});
