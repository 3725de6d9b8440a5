import { BlockList, isIP } from "node:net";

/** No hosts on the Internet; the same as those that tenants cannot connect to (multi_synapse/options/network.py). */
const PRIVATE: [network: string, prefix: number][] = [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 4],
  ["240.0.0.0", 4],
  ["::", 128],
  ["::1", 128],
  // These have IPv4 addresses in them, private ones too.
  ["64:ff9b::", 96],
  ["2002::", 16],
  ["100::", 64],
  ["2001:db8::", 32],
  ["fc00::", 7],
  ["fe80::", 10],
  ["fec0::", 10],
  ["ff00::", 8],
];

const list = new BlockList();
for (const [network, prefix] of PRIVATE) list.addSubnet(network, prefix, network.includes(":") ? "ipv6" : "ipv4");

/** Whether an address is of this machine or network, or none at all: a check must not be a way to reach these. */
export function isPrivate(address: string): boolean {
  const family = isIP(address);
  // An IPv4 address in the clothes of IPv6: nobody has a reason to publish one.
  if (/^::ffff:/i.test(address)) return true;
  return family === 0 || list.check(address, family === 6 ? "ipv6" : "ipv4");
}
