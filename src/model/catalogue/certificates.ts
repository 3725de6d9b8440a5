import type { Explained } from "./entry.ts";

export const CERTIFICATE_PROBLEMS = {
  NotReachable: {
    means: "A look at the name from here does not arrive at the gateway, so that no certificate is ordered.",
    todo: "Correct the name's DNS entry, or lead port 80 to the gateway.",
  },
  LimitReached: {
    means: "As many certificates as `certificates.acme` allows were ordered of late.",
    todo: "Wait, or raise the limits in `certificates.acme` if the authority allows more.",
  },
  RateLimited: { means: "The certificate authority wants no more orders for a while. It is tried again after that." },
  OrderFailed: {
    means: "The certificate authority did not issue the certificate. It is tried again at growing intervals.",
    todo: "The message has the authority's words.",
  },
} as const satisfies Record<string, Explained>;
