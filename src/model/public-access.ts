import { isIP } from "node:net";
import { z } from "zod";

const hostAndPort = z
  .string()
  .regex(/^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):\d{1,5}$/, "HOST:PORT such as 127.0.0.1:8448");
const dnsServer = z
  .string()
  .refine(isDnsServer, "the address of a DNS server, with a port if it is not 53: 9.9.9.9, [2620:fe::fe]:53");

/** How the world reaches the gateway, as far as it cannot be known from inside. */
export const PublicAccessSchema = z.strictObject({
  /** Addresses of the gateway, or of what is before it. DNS records that are asked for name them, and checks compare with them. */
  addresses: z
    .array(z.union([z.ipv4(), z.ipv6()], { error: "an IP address" }))
    .max(16)
    .default([]),
  /** Its port for https. */
  httpsPort: z.int().min(1).max(65535).default(443),
  /** Where checks ask for names, rather than the machine's own DNS servers: those may have another answer than the world gets. */
  dnsServers: z.array(dnsServer).max(4).default([]),
  /** Where checks reach a port of `addresses`, if the network does not let it be reached from inside. */
  connectTo: z
    .array(z.strictObject({ port: z.int().min(1).max(65535), to: hostAndPort }))
    .max(16)
    .default([]),
});
export type PublicAccess = z.infer<typeof PublicAccessSchema>;

function isDnsServer(text: string): boolean {
  const [, v6 = "", v4 = ""] = /^(?:\[([^\]]+)\]|([0-9.]+)):\d{1,5}$/.exec(text) ?? [];
  return isIP(text) !== 0 || isIP(v6) === 6 || isIP(v4) === 4;
}
