import { BlockList, isIP } from "node:net";
import type { AssignmentPolicy } from "../model/tenant-policy.ts";
import { isPrivate } from "./private-networks.ts";

interface Destination {
  list: BlockList;
  port: number | undefined;
}

/**
 * Where we may connect to on behalf of a tenant, whose owner names the place: where its shard may (`multi_synapse/options/network.py`). What cannot be
 * read allows nothing; shards refuse such a policy with the reason.
 */
export function tenantDestinations({
  allowedDestinations,
  refusedNetworks,
}: Pick<AssignmentPolicy, "allowedDestinations" | "refusedNetworks">): (address: string, port: number) => boolean {
  const allowed = allowedDestinations.flatMap((text) => destinationIn(text) ?? []);
  const refused = refusedNetworks.flatMap((text) => listOf(text) ?? []);
  return (address, port) => {
    const family = isIP(address) === 6 ? "ipv6" : "ipv4";
    if (allowed.some((one) => (one.port ?? port) === port && one.list.check(address, family))) return true;
    return !isPrivate(address) && !refused.some((list) => list.check(address, family));
  };
}

/** `10.1.2.3`, `10.1.0.0/16`, either with `:port`; an IPv6 address with a port is in brackets. */
function destinationIn(text: string): Destination | undefined {
  const [, bracketed, bracketPort] = /^\[(.+)\](?::(\d+))?$/.exec(text) ?? [];
  const [, plain, plainPort] = /^([^:]+)(?::(\d+))?$/.exec(text) ?? [];
  const list = listOf(bracketed ?? plain ?? text);
  const port = bracketPort ?? plainPort;
  return list && { list, port: port === undefined ? undefined : Number(port) };
}

function listOf(network: string): BlockList | undefined {
  const [address = "", bits] = network.split("/");
  const family = isIP(address);
  const prefix = bits === undefined ? (family === 6 ? 128 : 32) : Number(bits);
  if (family === 0 || !Number.isInteger(prefix) || prefix < 0 || prefix > (family === 6 ? 128 : 32)) return undefined;
  const list = new BlockList();
  list.addSubnet(address, prefix, family === 6 ? "ipv6" : "ipv4");
  return list;
}
