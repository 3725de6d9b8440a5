import { z } from "zod";
import { KubernetesBackupsSchema } from "./backups/config.ts";
import { ShardPodOptionsSchema } from "./launcher/pod-options.ts";
import { AdminAccessConfigSchema } from "../../model/admin-access.ts";
import { ClusterConfigSchema } from "../../model/cluster-config.ts";
import { readConfigFile } from "../../model/config-file.ts";

const port = z.int().min(1).max(65535);

/** The controller's configuration on Kubernetes: a YAML file that the chart makes from its values. Unknown keys are refused. */
export const KubernetesControllerConfigSchema = z.strictObject({
  /** The name of the chart's release. */
  clusterId: z.string().min(1).max(53),
  /** Where everything of the cluster is. */
  namespace: z.string().min(1),
  ...ClusterConfigSchema.pick({
    maxShardsPerSynapseImageTag: true,
    maxTenantsPerShard: true,
    avgShardsLoadRedistributionThreshold: true,
    consolidateAfterSeconds: true,
    maxConcurrentMoves: true,
    hibernation: true,
    balancing: true,
    maintenanceWindows: true,
    shardLostAfterSeconds: true,
    cpuBudget: true,
    history: true,
    plans: true,
    adminContact: true,
    deletedTenantsKeptDays: true,
    auditKeptDays: true,
    tenantPolicy: true,
    publicAccess: true,
    signIn: true,
  }).shape,
  /** A tenant created by the API without a server name gets NAME.BASEDOMAIN. */
  baseDomain: ClusterConfigSchema.shape.baseDomain.default("example.org"),
  api: z.strictObject({ host: z.string().default("0.0.0.0"), port: port.default(8010) }).prefault({}),
  /** The console, at a port of its own; absent: there is none. */
  console: z
    .strictObject({
      host: z.string().default("0.0.0.0"),
      port: port.default(8011),
      /** Of proxies before it, such as an ingress controller: addresses and networks. */
      trustedProxies: ClusterConfigSchema.shape.gateway.unwrap().shape.trustedProxies,
    })
    .optional(),
  /** The gateways' entrance for tenants' own administrators; absent: there is none. TLS ends before it. */
  adminAccess: AdminAccessConfigSchema,
  /** The Secret in the namespace with the keys `api-token` and `gateway-token`. */
  tokens: z.strictObject({
    secret: z.string().min(1),
    /** Whether the controller makes it where it is missing. */
    make: z.boolean(),
  }),
  /** Moves tenants off nodes that are cordoned; needs the right to read nodes. */
  nodeMaintenance: z.boolean().default(false),
  /** Hosts the SynapseTenants of other namespaces that an administrator has labelled; needs the right to read those. */
  tenantNamespaces: z.boolean().default(false),
  /** Absent: tenants are not backed up by the cluster. */
  backups: KubernetesBackupsSchema.optional(),
  shard: ShardPodOptionsSchema.prefault({}),
  /** Where federation of the tenants may reach private addresses, as in a test. */
  allowLocalFederation: z.boolean().default(false),
  logLevel: z.enum(["trace", "debug", "info", "warn", "error"]).default("info"),
});
export type KubernetesControllerConfig = z.infer<typeof KubernetesControllerConfigSchema>;

/** @throws UserError InvalidConfig that names each wrong path, what was given and what is allowed */
export function readControllerConfig(path: string): Promise<KubernetesControllerConfig> {
  return readConfigFile(path, KubernetesControllerConfigSchema);
}
