import { expect, it } from "vitest";
import { tenantDestinations } from "../../src/checks/tenant-destinations.ts";

const allowedDestinations = ["10.1.2.3:9000", "10.2.0.0/16", "[fd00::1]:443", "fd01::/16", "10.9.0.0/99", "nonsense"];
const may = tenantDestinations({ allowedDestinations, refusedNetworks: ["8.8.0.0/16"] });

it.each([
  ["a public address", "1.1.1.1", 443, true],
  ["one in a refused network", "8.8.4.4", 443, false],
  ["a private address", "192.168.0.1", 443, false],
  ["this machine", "127.0.0.1", 9000, false],
  ["metadata of a cloud", "169.254.169.254", 80, false],
  ["an IPv4 address in the clothes of IPv6", "::ffff:127.0.0.1", 80, false],
  ["an allowed address and port", "10.1.2.3", 9000, true],
  ["another port there", "10.1.2.3", 22, false],
  ["an allowed network", "10.2.9.9", 1, true],
  ["an allowed address of IPv6", "fd00::1", 443, true],
  ["another port of it", "fd00::1", 22, false],
  ["an allowed network of IPv6", "fd01::7", 1, true],
  ["a network that is none", "10.9.0.1", 1, false],
])("%s", (_what, address, port, expected) => expect(may(address, port)).toBe(expected));
