import { z } from "zod";
import { checkConfig, readConfigFile } from "../model/config-file.ts";
import { proxyProblem } from "./trusted-proxies.ts";

/**
 * Measured (`bench/latency.ts`): with 3, a tenant that is hammered gets done what it gets done without a limit, within a few percent, and its
 * neighbours' messages take half as long; 2 costs it a fifth and gains them little more.
 */
const DEFAULT_IN_FLIGHT = 3;

/** A company behind one address has a few for each of its people. */
const DEFAULT_CONNECTIONS_PER_ADDRESS = 1_000;

const host = z.string().min(1);
const port = z.int().min(0).max(65535);
const file = z.string().min(1);
const network = z.string().superRefine((entry, context) => {
  const allowed = proxyProblem(entry);
  if (allowed !== undefined) context.addIssue({ code: "custom", message: `expected ${allowed}` });
});

/** The gateway's configuration file (JSON). Unknown keys are refused; `docs/gateway.md` explains each. */
export const GatewayConfigSchema = z.strictObject({
  /** Names this gateway in the controller's status; each run adds a random part. */
  id: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,64}$/, "1 to 64 of letters, digits, dot, underscore and hyphen")
    .default("gateway"),
  http: z.strictObject({ host, port }),
  https: z
    .strictObject({
      host,
      port,
      /** Directory of `<host>.crt` and `<host>.key` (PEM). */
      certificates: file,
      /** Mints certificates for routed hosts that have no files. */
      ca: z.strictObject({ certificate: file, key: file }).nullable(),
    })
    .nullable(),
  controller: z.strictObject({ url: z.url({ protocol: /^https?$/ }), tokenFile: file }),
  /** Certificates that the controller gets for tenants' names, as it told them last. Without it, the controller is not asked for any. */
  certificatesFile: file.optional(),
  routesFile: file,
  readyFile: file,
  metrics: z.strictObject({ host, port }),
  adminApi: z.boolean(),
  /** Where tenants' own administrators come in, if their tenant is open for it; docs/admin-access.md. Without it, there is no such entrance. */
  adminAccess: z
    .strictObject({
      host,
      port,
      /** With the certificates of `https`. */
      tls: z.boolean(),
      /** Networks of administrators, whatever a tenant says; empty: any. */
      allowedNetworks: z.array(network).default([]),
      /** Of the pages that may call; others are refused. */
      origins: z.array(z.string().min(1)).default([]),
    })
    .optional(),
  maxBodyBytes: z.int().min(1024),
  parking: z.strictObject({
    maxRequests: z.int().min(1),
    maxBytes: z.int().min(1024),
    maxSeconds: z.number().min(0.1).max(600),
  }),
  /** Memory for all requests that wait or whose bodies are kept, of all tenants together; one tenant may have a quarter of it. */
  maxHeldBytes: z
    .int()
    .min(1024 * 1024)
    .default(256 * 1024 * 1024),
  /** Connections from one client address, with IPv6 from one network of 64 bits. */
  maxConnectionsPerAddress: z.int().min(1).default(DEFAULT_CONNECTIONS_PER_ADDRESS),
  /** Requests of one tenant at its homeserver at once; 0: any number. */
  maxInFlightPerTenant: z.int().min(0).default(DEFAULT_IN_FLIGHT),
  /** Proxies before the gateway, whose word about the client is believed. */
  trustedProxies: z.array(network).default([]),
  shutdown: z
    .strictObject({
      /** How long it goes on as before after SIGTERM, though it says that it is not ready: until nobody sends it anything new. */
      delaySeconds: z.number().min(0).max(600).default(0),
      /** How long what is in flight then has to end. */
      graceSeconds: z.number().min(0).max(600).default(10),
    })
    .prefault({}),
  /** For tenants that sleep. */
  sleeping: z
    .strictObject({
      /** Polls that are held, of all tenants together. */
      maxHeldPolls: z.int().min(0).default(20_000),
      /** Memory for answers that may be given again. */
      maxRememberedBytes: z
        .int()
        .min(0)
        .default(64 * 1024 * 1024),
    })
    .prefault({}),
  logFile: file.optional(),
  logLevel: z.enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"]).default("info"),
});

/** What no schema of one key can say. */
const CheckedSchema = GatewayConfigSchema.superRefine(({ adminAccess, https }, context) => {
  if (!adminAccess?.tls || https) return;
  const message = "expected false, as `https` is null and there are no certificates";
  context.addIssue({ code: "custom", path: ["adminAccess", "tls"], message });
});

export type GatewayConfig = z.infer<typeof GatewayConfigSchema>;
export type ParkingLimits = GatewayConfig["parking"];

/** @throws UserError InvalidConfig naming each wrong path, what was given and what is allowed */
export function parseGatewayConfig(document: unknown, where: string): GatewayConfig {
  return checkConfig(document, CheckedSchema, where);
}

/** @throws UserError InvalidConfig when the file is missing, neither JSON nor YAML, or wrong */
export function readGatewayConfig(path: string): Promise<GatewayConfig> {
  return readConfigFile(path, CheckedSchema);
}
