import { randomBytes } from "node:crypto";
import { messageOf } from "../model/errors.ts";
import type { Reachability } from "../ports/certificates.ts";
import { DnsFailure, type Network } from "./network.ts";

const PORT = 80;

/**
 * Asks each address of a host what its certificate authority will ask for. An order that cannot succeed is not sent: authorities count
 * failures.
 */
export function reachabilityIn(network: Network): Reachability {
  return async (host, thumbprint) => {
    const token = randomBytes(16).toString("base64url");
    const path = `/.well-known/acme-challenge/${token}`;
    try {
      const addresses = await network.addresses(host);
      if (addresses.length === 0) return `${host} has no address in DNS`;
      for (const address of addresses) {
        if (!network.mayConnect(address)) return `${host} leads to ${address}, which is no public address`;
        const { status, body } = await network.getPlain({ host, address, port: PORT, path });
        if (status === 200 && body.trim() === `${token}.${thumbprint}`) continue;
        return `${host} does not lead to this gateway: port ${PORT} of ${address} answers with ${status === 200 ? "something else" : status}`;
      }
      return undefined;
    } catch (error) {
      if (error instanceof DnsFailure) return `DNS does not answer: ${error.message}`;
      return `${host} does not lead to this gateway at port ${PORT}: ${messageOf(error)}`;
    }
  };
}
