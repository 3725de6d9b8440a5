import { expect, it } from "vitest";
import { isOwnHost } from "../../src/model/further-hosts.ts";

it.each<[string, string, string[], boolean]>([
  ["a.example", "a.example:8448", [], true],
  ["chat.a.example", "a.example", [], true],
  ["a.example", "chat.a.example", [], false],
  ["nota.example", "a.example", [], false],
  ["b.example", "a.example", [], false],
  ["b.example", "a.example", ["b.example"], true],
  ["chat.b.example", "a.example", ["b.example"], false],
  ["x.y.b.example", "a.example", ["*.b.example"], true],
  ["b.example", "a.example", ["*.b.example"], false],
  ["web.a.svc", "a.example", ["*.a.svc"], true],
  ["web.b.svc", "a.example", ["*.a.svc"], false],
  ["192.0.2.1", "192.0.2.1", [], true],
  ["1.192.0.2.1", "192.0.2.1", [], false],
  ["192.0.2.1", "a.example", ["192.0.2.1"], false],
  ["[2001:db8::1]", "[2001:db8::1]:8448", [], true],
  ["[2001:db8::1]", "a.example", ["[2001:db8::1]"], false],
])("whether %s leads to the tenant of %s with %j allowed", (host, serverName, allowed, expected) => {
  expect(isOwnHost(host, serverName, allowed)).toBe(expected);
});
