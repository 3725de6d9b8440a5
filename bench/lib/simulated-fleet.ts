import { randomBytes } from "node:crypto";
import { gzipSync } from "node:zlib";
import { stringify } from "yaml";
import { configHash } from "../../src/controller/start/configs.ts";
import type { Shard } from "../../src/model/shard.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import { newTenantSecrets, type TenantSecretData } from "../../src/model/tenant-secrets.ts";
import { proposedPort } from "../../src/platforms/kubernetes/launcher/assignment-secret.ts";
import {
  CONTAINER,
  CONTROL_PORT,
  hostOf,
  shardSecret,
  shardService,
  shardStatefulSet,
  type ShardIdentity,
} from "../../src/platforms/kubernetes/launcher/manifests.ts";
import { podNameOf } from "../../src/platforms/kubernetes/launcher/names.ts";
import { ShardPodOptionsSchema } from "../../src/platforms/kubernetes/launcher/pod-options.ts";
import { TENANT_LABEL } from "../../src/platforms/kubernetes/store/labelled-secrets.ts";
import { secretsFinding } from "../../src/platforms/kubernetes/store/derived-status.ts";
import { newObject, withStatus } from "../../src/platforms/kubernetes/store/mapping.ts";
import type { SynapseShard, SynapseTenant } from "../../src/platforms/kubernetes/store/resources.ts";
import { fakeMeaning } from "../../tests/support/fake-world.ts";
import { type Made, type ObjectClient, forAll } from "./object-client.ts";

export const RELEASE = "1.163.2";
/** Of the first revision of its release. */
const EPOCH = 2 ** 32 + 3;
const AT_ONCE = 48;
const PODS = ShardPodOptionsSchema.parse({});

export interface FleetOptions {
  clusterId: string;
  namespace: string;
  tenants: number;
  perShard: number;
  /** What the tenants' configurations name; only some of their databases need to be there. */
  database: { host: string; port: number };
  /** Where the simulated shard of a number is reached. */
  podIp: (shard: number) => string;
}

/** A fleet that has come to rest long ago: all that Kubernetes holds of it, as the controller and the chart `matrix-stack` would have made it. */
export class SimulatedFleet {
  readonly options: FleetOptions;
  readonly shards: number;
  readonly epoch = EPOCH;

  constructor(options: FleetOptions) {
    this.options = options;
    this.shards = Math.ceil(options.tenants / options.perShard);
  }

  nameOf(tenant: number): string {
    return `t-${tenant}`;
  }

  shardNameOf(shard: number): string {
    return `${RELEASE}-${shard}`;
  }

  shardOf(tenant: number): string {
    return this.shardNameOf(Math.floor(tenant / this.options.perShard));
  }

  /** Numbers of the tenants on a shard. */
  tenantsOn(shard: number): number[] {
    const { perShard, tenants } = this.options;
    const first = shard * perShard;
    return Array.from({ length: Math.min(perShard, tenants - first) }, (_, at) => first + at);
  }

  /** Where gateways reach it. */
  addressOf(tenant: number): string {
    return `${hostOf(this.#identity(this.shardOf(tenant)), PODS.clusterDomain)}:${proposedPort(this.nameOf(tenant))}`;
  }

  serverNameOf(tenant: number): string {
    return `${this.nameOf(tenant)}.example.org`;
  }

  /** As large as a small tenant's, which names its database and its bucket. @param limit changes with each edition */
  configOf(tenant: number, limit = 50): string {
    const name = this.nameOf(tenant);
    const { host, port } = this.options.database;
    return stringify({
      public_baseurl: `https://matrix.${this.serverNameOf(tenant)}/`,
      database: { name: "psycopg2", args: { host, port, dbname: name, user: name, password: "not-a-secret" } },
      media_storage_providers: [
        {
          module: "s3_storage_provider.S3StorageProviderBackend",
          store_local: true,
          store_remote: true,
          store_synchronous: true,
          config: {
            bucket: `media-${name}`,
            endpoint_url: "https://s3.example.org",
            access_key_id: "an-access-key-id",
            secret_access_key: "a-secret-access-key-of-forty-characters",
          },
        },
      ],
      enable_registration: false,
      max_upload_size: `${limit}M`,
    });
  }

  meaningOf(tenant: number) {
    return fakeMeaning({
      serverName: this.serverNameOf(tenant),
      overrides: this.configOf(tenant),
      epoch: EPOCH,
      base: {},
      signingKey: "",
    });
  }

  secretPath(tenant?: number): string {
    const path = `/api/v1/namespaces/${this.options.namespace}/secrets`;
    return tenant === undefined ? path : `${path}/${secretNameOf(this.nameOf(tenant))}`;
  }

  customPath(plural: string): string {
    return `/apis/synapse-shards.io/v1alpha1/namespaces/${this.options.namespace}/${plural}`;
  }

  /** Makes all objects. @param log told now and then how far it has come */
  async make(client: ObjectClient, log: (line: string) => void): Promise<void> {
    const { namespace, clusterId, tenants } = this.options;
    await client.create("/api/v1/namespaces", { metadata: { name: namespace } });
    await client.create(this.customPath("synapsefleets"), {
      apiVersion: "synapse-shards.io/v1alpha1",
      kind: "SynapseFleet",
      metadata: { name: clusterId },
      spec: { clusterId, imageTag: RELEASE },
    });
    const numbers = (count: number) => Array.from({ length: count }, (_, at) => at);
    await forAll(numbers(this.shards), AT_ONCE, (shard) => this.#makeShard(client, shard));
    log(`${this.shards} shards are there`);
    const begun = performance.now();
    let made = 0;
    await forAll(numbers(tenants), AT_ONCE, async (tenant) => {
      await this.#makeTenant(client, tenant);
      made += 1;
      if (made % 5_000 === 0) log(`${made} tenants are there, ${((performance.now() - begun) / 1000).toFixed(0)} s`);
    });
  }

  async #makeTenant(client: ObjectClient, number: number): Promise<void> {
    const { namespace, clusterId } = this.options;
    const name = this.nameOf(number);
    const serverName = this.serverNameOf(number);
    const { databasePassword: _, ...secrets } = newTenantSecrets(serverName);
    const keys: TenantSecretData = { ...secrets, databasePassword: "" };
    const config = this.configOf(number);
    const path = this.customPath("synapsetenants");
    const spec = { serverName, release: "", config: "", reclaimPolicy: "Retain" as const };
    const bare = newObject("Tenant", name, spec, { clusterId, namespace });
    const { config: __, ...written } = bare.spec;
    const custom = await client.create(path, {
      ...bare,
      metadata: { ...bare.metadata, labels: { "app.kubernetes.io/name": "matrix-stack" } },
      spec: { ...written, secretName: secretNameOf(name), revision: 1 },
    } satisfies SynapseTenant);
    const tenant = this.#tenant(number, custom, config, keys);
    const complete = withStatus(custom, tenant, tenant.status.assignedAt ?? "", [secretsFinding(undefined)]);
    await client.replace(`${path}/${name}/status`, complete as SynapseTenant);
    const labels = { [TENANT_LABEL]: name };
    const stringData = {
      "homeserver.yaml": config,
      "signing.key": keys.signingKey,
      "macaroon-secret-key": keys.macaroonSecretKey,
      "form-secret": keys.formSecret,
      "registration-shared-secret": keys.registrationSharedSecret,
    };
    await client.create(this.secretPath(), { metadata: { name: secretNameOf(name), labels }, stringData });
    const hash = tenant.status.configHash ?? "";
    await client.create(this.secretPath(), {
      metadata: {
        name: `${name}.config-in-effect`,
        labels: { ...labels, "app.kubernetes.io/managed-by": "synapse-shards-controller" },
        ownerReferences: [{ apiVersion: custom.apiVersion, kind: custom.kind, name, uid: custom.metadata.uid }],
      },
      stringData: { "config-hash": hash, "homeserver.yaml": config, "keys.json": JSON.stringify(keys) },
    });
  }

  #tenant(number: number, custom: SynapseTenant & Made, config: string, keys: TenantSecretData): Tenant {
    const name = this.nameOf(number);
    const metadata = { name, resourceVersion: "", generation: 1, creationTimestamp: LONG_AGO };
    const labels = custom.metadata?.labels ?? {};
    const spec = {
      serverName: this.serverNameOf(number),
      release: "",
      config,
      reclaimPolicy: "Retain" as const,
      labels,
    };
    const hash = configHash({ spec: { ...spec, revision: 1 } }, keys);
    return {
      kind: "Tenant",
      metadata,
      spec: { ...spec, revision: 1 },
      status: {
        phase: "Running",
        reason: "",
        message: "",
        shard: this.shardOf(number),
        epoch: EPOCH,
        address: this.addressOf(number),
        schemaRelease: RELEASE,
        fleetRelease: RELEASE,
        observedGeneration: 1,
        provisioned: true,
        assignedAt: LONG_AGO,
        failures: 0,
        configHash: hash,
        inEffect: { hash, meaning: this.meaningOf(number) },
      },
    };
  }

  async #makeShard(client: ObjectClient, number: number): Promise<void> {
    const { namespace, clusterId, podIp } = this.options;
    const shard = this.shardNameOf(number);
    const path = this.customPath("synapseshards");
    const bare = newObject("Shard", shard, { release: RELEASE }, { clusterId, namespace });
    const custom = await client.create(path, bare);
    const resource: Shard = {
      kind: "Shard",
      metadata: { name: shard, resourceVersion: "", generation: 1, creationTimestamp: LONG_AGO },
      spec: { release: RELEASE },
      status: {
        phase: "Ready",
        reason: "",
        message: "",
        failures: 0,
        address: `http://${podIp(number)}:${CONTROL_PORT}`,
        lastAssignmentChange: LONG_AGO,
        lastSeen: LONG_AGO,
      },
    };
    const counted = { ...custom, status: { tenants: this.tenantsOn(number).length } };
    await client.replace(
      `${path}/${custom.metadata.name}/status`,
      withStatus(counted, resource, LONG_AGO) as SynapseShard,
    );
    const identity = this.#identity(shard);
    const secret = shardSecret(identity, PODS, randomBytes(32).toString("base64url"));
    // Copies of the assignments: random keys and a configuration, compressed, are about a kilobyte.
    const copies = this.tenantsOn(number).map((tenant) => {
      const assignment = { overrides: this.configOf(tenant), keys: randomBytes(256).toString("base64") };
      return [`${this.nameOf(tenant)}.json.gz`, gzipSync(JSON.stringify(assignment)).toString("base64")] as const;
    });
    await client.create(this.secretPath(), { ...secret, data: Object.fromEntries(copies) });
    await client.create(`/api/v1/namespaces/${namespace}/services`, shardService(identity, PODS));
    const statefulSet = shardStatefulSet(identity, PODS);
    await client.create(`/apis/apps/v1/namespaces/${namespace}/statefulsets`, statefulSet);
    await this.#makePod(client, number, statefulSet);
  }

  /** Which no node has; as its controller and its kubelet would write it. */
  async #makePod(
    client: ObjectClient,
    number: number,
    statefulSet: ReturnType<typeof shardStatefulSet>,
  ): Promise<void> {
    const { namespace, podIp } = this.options;
    const path = `/api/v1/namespaces/${namespace}/pods`;
    const name = podNameOf(statefulSet.metadata?.name ?? "");
    const { metadata = {}, spec = { containers: [] } } = statefulSet.spec?.template ?? {};
    const pod = await client.create(path, { metadata: { name, labels: metadata.labels }, spec });
    const ip = podIp(number);
    const state = { running: { startedAt: LONG_AGO } };
    await client.replace(`${path}/${name}/status`, {
      ...pod,
      status: {
        phase: "Running",
        podIP: ip,
        podIPs: [{ ip }],
        conditions: [{ type: "Ready", status: "True", lastTransitionTime: LONG_AGO }],
        containerStatuses: [
          { name: CONTAINER, image: "shard", imageID: "", ready: true, started: true, restartCount: 0, state },
        ],
      },
    });
  }

  #identity(shard: string): ShardIdentity {
    const { clusterId, namespace } = this.options;
    return { clusterId, namespace, shard, imageTag: RELEASE, managerVersion: "0.0.0" };
  }
}

/** Past all times for which the controller waits. */
const LONG_AGO = new Date(Math.floor((Date.now() - 86_400_000) / 1000) * 1000).toISOString().replace(".000Z", "Z");

function secretNameOf(tenant: string): string {
  return `${tenant}-synapse-tenant`;
}
