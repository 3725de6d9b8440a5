import { z } from "zod";

const texts = z.record(z.string(), z.string());
/** Parts of a pod that are Kubernetes' own, and are checked by the API server. */
const kubernetesObject = z.record(z.string(), z.unknown());

/** As in multi_synapse/settings.py. */
export const DEFAULT_MEDIA_CACHE = { maxMiB: 2048, maxAgeHours: 168 };

/** What an administrator may say about the shards' pods; the chart's `shard` values. Every key is optional. */
export const ShardPodOptionsSchema = z.strictObject({
  image: z
    .strictObject({
      /** Empty: the container runtime's default. */
      registry: z.string().default(""),
      /** The tag is the tenants' choice. */
      repository: z.string().min(1).default("synapse-shards/shard"),
      pullPolicy: z.enum(["Always", "IfNotPresent", "Never"]).default("IfNotPresent"),
      pullSecrets: z.array(z.strictObject({ name: z.string() })).default([]),
    })
    .prefault({}),
  /** Local copies of media that are in their tenants' buckets; of all tenants of a shard together. */
  mediaCache: z
    .strictObject({
      maxMiB: z.int().min(0).default(DEFAULT_MEDIA_CACHE.maxMiB),
      /** Removed when unused for this long. */
      maxAgeHours: z.number().min(1).default(DEFAULT_MEDIA_CACHE.maxAgeHours),
    })
    .prefault({}),
  /** A ConfigMap with certificate authorities for PostgreSQL and S3, in PEM; none if it has no name. */
  trustedCAs: z
    .strictObject({ configMap: z.string().default(""), key: z.string().min(1).default("ca.crt") })
    .prefault({}),
  /** Bounds of the pods' local volumes: a pod that exceeds one is evicted. */
  volumes: z
    .strictObject({
      stateMiB: z.int().min(16).default(512),
      tmpMiB: z.int().min(16).default(4096),
      /** 0: what the media cache may grow to between two looks at it. */
      mediaMiB: z.int().min(0).default(0),
    })
    .prefault({}),
  /** Synapse releases that may run though the runtime was never tested with them. */
  allowUntestedReleases: z.array(z.string().min(1)).default([]),
  /** Roles of PostgreSQL that may stay connected to tenants' databases, and write to them, while a tenant starts. */
  databaseRolesLeftAlone: z.array(z.string().min(1)).default([]),
  resources: kubernetesObject.default({}),
  nodeSelector: texts.default({}),
  tolerations: z.array(kubernetesObject).default([]),
  affinity: kubernetesObject.default({}),
  /** One without a labelSelector is about the shards of this cluster. */
  topologySpreadConstraints: z.array(kubernetesObject).default([]),
  extraEnv: z.array(kubernetesObject).default([]),
  annotations: texts.default({}),
  labels: texts.default({}),
  /** Of the namespace's; its token is never mounted. */
  serviceAccountName: z.string().default("default"),
  priorityClassName: z.string().default(""),
  /** Added to ours, and stronger, for platforms that choose users themselves. */
  podSecurityContext: kubernetesObject.default({}),
  containersSecurityContext: kubernetesObject.default({}),
  clusterDomain: z
    .string()
    .regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, "a domain name such as cluster.local")
    .default("cluster.local"),
  /** Address that control API and tenants listen on; `::` where pods have IPv6 addresses only. */
  listenHost: z.string().default("0.0.0.0"),
  logLevel: z.enum(["DEBUG", "INFO", "WARNING", "ERROR"]).default("INFO"),
});

export type ShardPodOptions = z.infer<typeof ShardPodOptionsSchema>;
