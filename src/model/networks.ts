import { z } from "zod";

/** An address, or a network. */
export const NetworkSchema = z.union([z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()], {
  error: "an IP address or a network such as 10.0.0.0/8",
});
