import { z } from "zod";
import { ClusterConfigSchema } from "../../model/cluster-config.ts";

/** What `up` writes for the controller's process. Secrets are in files of their own. */
export const ControllerConfigSchema = z.strictObject({
  dataDir: z.string(),
  storeFile: z.string(),
  /** How the cluster was, for plots. */
  historyFile: z.string(),
  /** The key to the secrets in it. */
  storeKeyFile: z.string(),
  api: z.strictObject({
    host: z.string(),
    port: z.int(),
    metricsNeedToken: z.boolean(),
    consoleHosts: z.array(z.string()),
    trustedProxies: z.array(z.string()),
  }),
  apiTokenFile: z.string(),
  gatewayTokenFile: z.string(),
  tokensFile: z.string(),
  auditFile: z.string(),
  readyFile: z.string(),
  logFile: z.string(),
  postgres: z.strictObject({ host: z.string(), port: z.int(), user: z.string(), passwordFile: z.string() }),
  cluster: ClusterConfigSchema,
  caCertificate: z.string(),
  /** Where the operator's own certificates are. */
  certificatesDirectory: z.string(),
  cacheDir: z.string(),
  gatewayUrls: z.strictObject({ http: z.url(), https: z.url() }),
  /** Where the gateway listens for tenants' administrators. Not among `gatewayUrls`, which tenants reach. */
  adminPort: z.int().optional(),
});
export type ControllerConfig = z.infer<typeof ControllerConfigSchema>;
