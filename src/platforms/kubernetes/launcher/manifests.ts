import type { V1EnvVar, V1OwnerReference, V1Secret, V1Service, V1StatefulSet } from "@kubernetes/client-node";
import { LABELS, labelValue, podNameOf, shardObjectName } from "./names.ts";
import { DEFAULT_MEDIA_CACHE, type ShardPodOptions } from "./pod-options.ts";

/** What a shard's objects are made from. */
export interface ShardIdentity {
  clusterId: string;
  namespace: string;
  /** The model's name, `<tag>-<index>`. */
  shard: string;
  imageTag: string;
  /** Of this project, for the label. */
  managerVersion: string;
  owner?: V1OwnerReference;
}

export const CONTROL_PORT = 9000;
export const CONTAINER = "shard";
/** Where a tenant's media are kept while they are read and written; what is kept for good is in its bucket. */
export const MEDIA_CACHE_PATH = "/var/cache/synapse-shards/media";

const STATE_PATH = "/var/lib/synapse-shards";
const SECRET_PATH = "/run/synapse-shards";
const USER = 10001;
/** A shard ends its tenants within 30 seconds (multi_synapse), and a busy node takes its time. */
const GRACE_SECONDS = 60;

/** Which pods, StatefulSets, … are the shards' of a cluster. */
export function selectorOf(clusterId: string): Record<string, string> {
  return { [LABELS.cluster]: labelValue(clusterId), "app.kubernetes.io/component": "shard" };
}

function labelsOf({ clusterId, shard, imageTag, managerVersion }: ShardIdentity): Record<string, string> {
  return {
    "app.kubernetes.io/name": "synapse-shards",
    "app.kubernetes.io/instance": labelValue(clusterId),
    "app.kubernetes.io/managed-by": "synapse-shards-controller",
    "app.kubernetes.io/version": labelValue(managerVersion),
    ...selectorOf(clusterId),
    [LABELS.shard]: labelValue(shard),
    [LABELS.imageTag]: labelValue(imageTag),
  };
}

function metadataOf(identity: ShardIdentity, options: ShardPodOptions) {
  return {
    name: shardObjectName(identity.clusterId, identity.shard),
    namespace: identity.namespace,
    labels: { ...options.labels, ...labelsOf(identity) },
    ...(identity.owner ? { ownerReferences: [identity.owner] } : {}),
  };
}

/** The name by which gateways reach the shard: it stays when the pod is replaced and its IP changes. */
export function hostOf({ clusterId, namespace, shard }: ShardIdentity, clusterDomain: string): string {
  const name = shardObjectName(clusterId, shard);
  return `${podNameOf(name)}.${name}.${namespace}.svc.${clusterDomain}`;
}

/** The name in DNS. Headless: it is the pod's own, also while the pod is not ready, as a gateway decides itself whom to ask. */
export function shardService(identity: ShardIdentity, options: ShardPodOptions): V1Service {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: metadataOf(identity, options),
    spec: {
      clusterIP: "None",
      publishNotReadyAddresses: true,
      selector: { ...selectorOf(identity.clusterId), [LABELS.shard]: labelValue(identity.shard) },
      ports: [{ name: "control", port: CONTROL_PORT, targetPort: "control", protocol: "TCP" }],
    },
  };
}

/** The shard's own configuration and token; the assignments are added tenant by tenant (assignment-secret.ts). */
export function shardSecret(identity: ShardIdentity, options: ShardPodOptions, token: string): V1Secret {
  return {
    apiVersion: "v1",
    kind: "Secret",
    metadata: metadataOf(identity, options),
    type: "Opaque",
    stringData: { token, "shard.json": shardSettings(identity, options) },
  };
}

/** The configuration file of multi_synapse (settings.py). */
export function shardSettings(identity: ShardIdentity, options: ShardPodOptions): string {
  const settings = {
    name: identity.shard,
    // Below the volume, whose own directory is not the user's.
    stateDir: `${STATE_PATH}/state`,
    assignmentsDir: SECRET_PATH,
    control: { host: options.listenHost, port: CONTROL_PORT },
    tokenFile: `${SECRET_PATH}/token`,
    advertiseHost: hostOf(identity, options.clusterDomain),
    listenHost: options.listenHost,
    logLevel: options.logLevel,
    ...mediaCacheSettings(options.mediaCache),
    ...listed("allowUntestedReleases", options.allowUntestedReleases),
    ...listed("databaseRolesLeftAlone", options.databaseRolesLeftAlone),
  };
  return JSON.stringify(settings, null, 2);
}

function listed(key: string, values: string[]): object {
  return values.length === 0 ? {} : { [key]: values };
}

/** Said only where it is not the default: a shard of an older image refuses settings that it does not know. */
function mediaCacheSettings({ maxMiB, maxAgeHours }: ShardPodOptions["mediaCache"]): object {
  return {
    ...(maxMiB === DEFAULT_MEDIA_CACHE.maxMiB ? {} : { mediaCacheBytes: maxMiB * 2 ** 20 }),
    ...(maxAgeHours === DEFAULT_MEDIA_CACHE.maxAgeHours ? {} : { mediaCacheSeconds: maxAgeHours * 3600 }),
  };
}

const CA_PATH = "/etc/synapse-shards/ca";

/** How libpq and the S3 client are told of certificate authorities. */
function trustOf({ trustedCAs: { configMap, key } }: ShardPodOptions) {
  if (configMap === "") return { env: [], mounts: [], volumes: [] };
  const file = `${CA_PATH}/${key}`;
  return {
    env: ["PGSSLROOTCERT", "AWS_CA_BUNDLE"].map((name) => ({ name, value: file })),
    mounts: [{ name: "ca", mountPath: CA_PATH, readOnly: true }],
    volumes: [{ name: "ca", configMap: { name: configMap } }],
  };
}

/** The cache is looked at every ten minutes, and may exceed its bound until then. */
function mediaMiBOf({ volumes, mediaCache }: ShardPodOptions): number {
  return volumes.mediaMiB > 0 ? volumes.mediaMiB : 2 * mediaCache.maxMiB + 2048;
}

export function shardStatefulSet(identity: ShardIdentity, options: ShardPodOptions): V1StatefulSet {
  const metadata = metadataOf(identity, options);
  const selector = { ...selectorOf(identity.clusterId), [LABELS.shard]: labelValue(identity.shard) };
  const probe = { httpGet: { path: "/healthz", port: "control" } };
  const { registry, repository, pullPolicy, pullSecrets } = options.image;
  const { volumes } = options;
  const trust = trustOf(options);
  return {
    apiVersion: "apps/v1",
    kind: "StatefulSet",
    metadata,
    spec: {
      replicas: 1,
      serviceName: metadata.name,
      podManagementPolicy: "Parallel",
      // Never because the template changed: that would stop every tenant of the shard. It is for the next pod.
      updateStrategy: { type: "OnDelete" },
      revisionHistoryLimit: 1,
      selector: { matchLabels: selector },
      template: {
        metadata: { labels: metadata.labels, annotations: options.annotations },
        spec: {
          serviceAccountName: options.serviceAccountName,
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          terminationGracePeriodSeconds: GRACE_SECONDS,
          imagePullSecrets: pullSecrets,
          nodeSelector: options.nodeSelector,
          tolerations: options.tolerations,
          ...(Object.keys(options.affinity).length > 0 ? { affinity: options.affinity } : {}),
          topologySpreadConstraints: options.topologySpreadConstraints.map((constraint) => ({
            labelSelector: { matchLabels: selectorOf(identity.clusterId) },
            ...(constraint as { maxSkew: number; topologyKey: string; whenUnsatisfiable: string }),
          })),
          ...(options.priorityClassName === "" ? {} : { priorityClassName: options.priorityClassName }),
          securityContext: {
            runAsNonRoot: true,
            runAsUser: USER,
            runAsGroup: USER,
            fsGroup: USER,
            seccompProfile: { type: "RuntimeDefault" },
            ...options.podSecurityContext,
          },
          containers: [
            {
              name: CONTAINER,
              image: `${registry === "" ? "" : `${registry}/`}${repository}:${identity.imageTag}`,
              imagePullPolicy: pullPolicy,
              args: ["--config", `${SECRET_PATH}/shard.json`],
              env: [...trust.env, ...(options.extraEnv as unknown as V1EnvVar[])],
              resources: options.resources,
              terminationMessagePolicy: "FallbackToLogsOnError",
              ports: [{ name: "control", containerPort: CONTROL_PORT, protocol: "TCP" }],
              securityContext: {
                allowPrivilegeEscalation: false,
                readOnlyRootFilesystem: true,
                capabilities: { drop: ["ALL"] },
                ...options.containersSecurityContext,
              },
              // Importing Synapse takes seconds, on a full node a minute.
              startupProbe: { ...probe, periodSeconds: 2, timeoutSeconds: 5, failureThreshold: 90 },
              readinessProbe: { ...probe, periodSeconds: 5, timeoutSeconds: 5, failureThreshold: 3 },
              // Killing a shard stops every tenant on it: only for one that has not answered anything for two minutes.
              livenessProbe: { ...probe, periodSeconds: 15, timeoutSeconds: 10, failureThreshold: 8 },
              volumeMounts: [
                { name: "state", mountPath: STATE_PATH },
                { name: "media", mountPath: MEDIA_CACHE_PATH },
                { name: "tmp", mountPath: "/tmp" },
                { name: "secret", mountPath: SECRET_PATH, readOnly: true },
                ...trust.mounts,
              ],
            },
          ],
          volumes: [
            { name: "state", emptyDir: { sizeLimit: `${volumes.stateMiB}Mi` } },
            { name: "media", emptyDir: { sizeLimit: `${mediaMiBOf(options)}Mi` } },
            { name: "tmp", emptyDir: { sizeLimit: `${volumes.tmpMiB}Mi` } },
            { name: "secret", secret: { secretName: metadata.name, defaultMode: 0o440 } },
            ...trust.volumes,
          ],
        },
      },
    },
  };
}
