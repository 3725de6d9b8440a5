import { z } from "zod";
import { AdminAccessConfigSchema } from "./admin-access.ts";
import { AdminContactSchema } from "./admin-contact.ts";
import { BackupsConfigSchema } from "./backup.ts";
import { CertificatesConfigSchema } from "./certificates.ts";
import { CpuBudgetSchema } from "./cpu-budget.ts";
import { DatabaseServersSchema } from "./database-servers.ts";
import { HistoryConfigSchema } from "./history-source.ts";
import { PublicAccessSchema } from "./public-access.ts";
import { DEFAULT_BALANCING, DEFAULT_HIBERNATION, DEFAULT_POLICY, type Policy } from "./policy.ts";
import { NetworkSchema } from "./networks.ts";
import { NotificationsSchema } from "./notification.ts";
import { PlansSchema } from "./quota.ts";
import { SignInSchema } from "./sign-in.ts";
import { TenantPolicySchema } from "./tenant-policy.ts";
import { MaintenanceWindowSchema } from "./windows-schema.ts";

const port = z.int().min(0).max(65535);

/** The cluster's configuration file. Every key is optional; unknown keys are refused. */
export const ClusterConfigSchema = z.strictObject({
  maxShardsPerSynapseImageTag: z.int().min(1).max(1000).default(DEFAULT_POLICY.maxShardsPerSynapseImageTag),
  /** On one machine: as many shards of a release as the machine has cores, if those are more. */
  shardsFollowCores: z.boolean().default(false),
  maxTenantsPerShard: z.int().min(1).max(1000).default(DEFAULT_POLICY.maxTenantsPerShard),
  avgShardsLoadRedistributionThreshold: z
    .number()
    .min(0)
    .max(1000)
    .default(DEFAULT_POLICY.avgShardsLoadRedistributionThreshold),
  consolidateAfterSeconds: z.number().min(0).max(86400).default(DEFAULT_POLICY.consolidateAfterSeconds),
  maxConcurrentMoves: z.int().min(1).max(100).default(DEFAULT_POLICY.maxConcurrentMoves),
  /** Tenants that nobody uses sleep. */
  hibernation: z
    .strictObject({
      /** A tenant that nobody has used for this time falls asleep; 0: only those with a time of their own. Looked at every 10 seconds. */
      afterIdleSeconds: z.number().min(0).max(31_536_000).default(DEFAULT_HIBERNATION.afterIdleSeconds),
      /** A tenant that was woken stays awake for at least this time, even if its place is needed. */
      minAwakeSeconds: z.number().min(0).max(86_400).default(DEFAULT_HIBERNATION.minAwakeSeconds),
      /** Tenants that are woken at once, and those that fall asleep at once. */
      maxConcurrentWakes: z.int().min(1).max(1000).default(DEFAULT_HIBERNATION.maxConcurrentWakes),
    })
    .prefault({}),
  /** Shards share the load; docs/load.md. */
  balancing: z
    .strictObject({
      /** Share of a core above which a shard sheds a tenant; 0: load decides nothing. */
      cpuTarget: z.number().min(0).max(1).default(DEFAULT_BALANCING.cpuTarget),
      /** What counts is the average of this time; and of ten times this time what lasts. */
      averageSeconds: z.number().min(1).max(3600).default(DEFAULT_BALANCING.averageSeconds),
      /** After a move for the load, both shards keep their tenants for this time. */
      coolDownSeconds: z.number().min(0).max(86_400).default(DEFAULT_BALANCING.coolDownSeconds),
      /** A tenant that was moved for the load stays for this time. */
      tenantRestSeconds: z.number().min(0).max(604_800).default(DEFAULT_BALANCING.tenantRestSeconds),
      /** The most moves for the load in any hour; of many tenants, 1 % of them where that is more. */
      movesPerHour: z.int().min(0).max(10_000).default(DEFAULT_BALANCING.movesPerHour),
    })
    .prefault({}),
  /** When tenants may be moved only to tidy up: by consolidation, and for the load. None: at any time. */
  maintenanceWindows: z.array(MaintenanceWindowSchema).max(100).default([]),
  /** The Synapse release of tenants that name none. */
  release: z
    .string()
    .regex(/^\d+\.\d+\.\d+$/, "a release of matrix-synapse such as 1.163.2")
    .default("1.163.2"),
  /** A tenant `x` without a server name of its own gets `x.<baseDomain>`. */
  baseDomain: z
    .string()
    .regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, "a domain name such as localhost")
    .default("localhost"),
  gateway: z
    .strictObject({
      host: z.string().default("127.0.0.1"),
      port: port.default(8008),
      /** Federation and HTTPS clients. */
      tlsPort: port.default(8448),
      /** Lets `/_synapse/admin` of all tenants in from outside, with all that is in it. */
      adminApi: z.boolean().default(false),
      /** An entrance of its own for tenants' administrators; docs/admin-access.md. Without it there is none. */
      adminAccess: AdminAccessConfigSchema,
      /** Largest request body in bytes. */
      maxBodyBytes: z
        .int()
        .min(1024)
        .default(100 * 1024 * 1024),
      /** Requests of one tenant at its homeserver at once, so that a busy one leaves its neighbours their time; 0: any number. */
      maxInFlightPerTenant: z.int().min(0).default(3),
      /** Proxies before the gateway, such as nginx or Caddy on the same machine: addresses and networks. */
      trustedProxies: z.array(NetworkSchema).default([]),
      /** Domains beside `baseDomain` for which the cluster's own certificate authority may sign. */
      certificateDomains: z
        .array(z.string().regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, "a domain name such as clinic.example"))
        .default([]),
      parking: z
        .strictObject({
          /** Per tenant. */
          maxRequests: z.int().min(1).default(200),
          /** Per tenant: headers and bodies held in memory. */
          maxBytes: z
            .int()
            .min(1024)
            .default(8 * 1024 * 1024),
          maxSeconds: z.number().min(0.1).max(600).default(30),
        })
        .prefault({}),
    })
    .prefault({}),
  /** Certificates that the cluster gets for its tenants' names; docs/certificates.md. Without it there are the operator's files, and our own authority. */
  certificates: CertificatesConfigSchema.optional(),
  /** How the world reaches the gateway; docs/checks.md. */
  publicAccess: PublicAccessSchema.prefault({}),
  /** The file with the key to the secrets in the store (default: store.key in the data directory); made if it is not there. */
  storeKeyFile: z.string().min(1).optional(),
  /** Synapse releases that may run though the runtime was never tested with them. */
  allowUntestedReleases: z.array(z.string().min(1)).default([]),
  /** Python packages for shards, beside Synapse's own: what `tenantPolicy.allowedModules` lets tenants name has to be in one of them. */
  modules: z
    .array(
      z.strictObject({
        name: z.string().regex(/^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/, "the name of a package on PyPI"),
        version: z.string().regex(/^[0-9][A-Za-z0-9.!+]*$/, "one version such as 1.2.0"),
        /** Of the wheels that may be installed. */
        hashes: z
          .array(z.string().regex(/^sha256:[0-9a-f]{64}$/, "sha256: and 64 hexadecimal digits in lower case"))
          .min(1),
      }),
    )
    .max(100)
    .refine((modules) => new Set(modules.map(({ name }) => plainName(name))).size === modules.length, {
      error: "a package is named twice",
    })
    .default([]),
  /** PostgreSQL servers beside the cluster's own, and how new databases are shared among them; docs/postgresql.md. */
  databaseServers: DatabaseServersSchema.default([]),
  /** Roles of PostgreSQL that may stay connected to tenants' databases, and write to them, while a tenant starts. */
  databaseRolesLeftAlone: z.array(z.string().min(1)).default([]),
  api: z
    .strictObject({
      host: z.string().default("127.0.0.1"),
      port: port.default(8010),
      /** Asks for a token at `/metrics` too; a viewer's is enough. */
      metricsNeedToken: z.boolean().default(false),
      /** Names besides localhost under which browsers reach the console, such as that of a proxy before it. */
      consoleHosts: z
        .array(
          z.string().regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, "a host name such as console.example, without port"),
        )
        .default([]),
      /** Proxies before it, whose word about where somebody is counts, for the audit log and the limit of sign-ins: addresses and networks. */
      trustedProxies: z
        .array(NetworkSchema.refine((network) => !network.endsWith("/0"), "not every address: name your proxies"))
        .default([]),
    })
    .prefault({}),
  /** How people sign in to the console, besides with tokens; docs/access.md. */
  signIn: SignInSchema.prefault({}),
  /** Database, media and keys of a deleted tenant are kept for this time, and then removed. A tenant keeps the date that it was deleted with. */
  deletedTenantsKeptDays: z.number().min(0.01).max(36_500).default(30),
  /** Entries of the audit log are kept for at least this time. */
  auditKeptDays: z.number().min(1).max(36_500).default(400),
  /** A shard that does not answer for this long is `Lost`, and its tenants are started elsewhere. */
  shardLostAfterSeconds: z.number().min(1).max(3600).default(15),
  cpuBudget: CpuBudgetSchema.prefault({}),
  /** Where plots come from; docs/metrics.md. */
  history: HistoryConfigSchema.prefault({}),
  /** Whom users of tenants are told to turn to, where their homeserver is suspended or a quota is reached; a tenant's own `admin_contact` goes first. */
  adminContact: AdminContactSchema.optional(),
  /** Named sets of quotas for tenants; docs/quotas.md. */
  plans: PlansSchema.default({}),
  /** How operators are told of events; docs/notifications.md. */
  notifications: NotificationsSchema.prefault({}),
  /** Backups of tenants; without it there are none. */
  backups: BackupsConfigSchema.optional(),
  /** What tenants may do beyond docs/configuration.md. */
  tenantPolicy: TenantPolicySchema.prefault({}),
});

export type ClusterConfig = z.infer<typeof ClusterConfigSchema>;

/** The index knows a package by it, however it is written. */
function plainName(name: string): string {
  return name.toLowerCase().replaceAll(/[-_.]+/g, "-");
}

/** @param cores of the machine */
export function policyOf(config: ClusterConfig, cores: number): Policy {
  const { shardsFollowCores, maxTenantsPerShard, avgShardsLoadRedistributionThreshold } = config;
  const { consolidateAfterSeconds, maxConcurrentMoves, hibernation, balancing } = config;
  const most = config.maxShardsPerSynapseImageTag;
  return {
    maxShardsPerSynapseImageTag: shardsFollowCores ? Math.max(most, cores) : most,
    maxTenantsPerShard,
    avgShardsLoadRedistributionThreshold,
    consolidateAfterSeconds,
    maxConcurrentMoves,
    hibernation,
    balancing,
  };
}
