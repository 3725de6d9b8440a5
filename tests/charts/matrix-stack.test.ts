import { expect, it, describe } from "vitest";
import { parse } from "yaml";
import {
  CHART,
  content,
  find,
  helm,
  HOOK,
  KEYS,
  merged,
  MINIMAL,
  template,
  withoutHelm,
} from "./support/matrix-stack.ts";

const DEDICATED = merged(MINIMAL, { synapse: KEYS });
const TENANT = merged(DEDICATED, { synapse: { asTenantHook: { enabled: true, ...HOOK } } });
const HANDOVER = merged(DEDICATED, { synapse: { asTenantHook: { enabled: false, ...HOOK } } });

describe.skipIf(withoutHelm)("chart matrix-stack", () => {
  it("prevents a chart that helm lint refuses, in any mode", async () => {
    for (const values of [DEDICATED, TENANT, HANDOVER])
      expect(await helm(["lint", "--strict", CHART], values)).toContain("0 chart(s) failed");
  });

  it("prevents a tenant that the controller does not find: its object and its Secret are in the shards' namespace, as the contract says", async () => {
    const rendered = await template(TENANT);
    const tenant = find(rendered, "SynapseTenant");
    expect(tenant.metadata).toMatchObject({ name: "clinic-a", namespace: "shards" });
    expect(tenant.spec).toEqual({
      clusterId: "synapse-shards",
      serverName: "clinic-a.example",
      secretName: "clinic-a-synapse-tenant",
      revision: 1,
      reclaimPolicy: "Retain",
    });
    const secret = find(rendered, "Secret", "clinic-a-synapse-tenant");
    expect(secret.metadata.namespace).toBe("shards");
    expect(secret.metadata.labels?.["synapse-shards.io/tenant"]).toBe("clinic-a");
    expect(Object.keys(secret.data ?? {}).toSorted()).toEqual([
      "form-secret",
      "homeserver.yaml",
      "macaroon-secret-key",
      "registration-shared-secret",
      "signing.key",
    ]);
    expect(content(secret, "signing.key").trim()).toBe(KEYS.signingKey.value);
    expect(content(secret, "macaroon-secret-key")).toBe("macaroon-secret");
    expect(rendered.some(({ kind }) => kind === "StatefulSet")).toBe(false);
    expect(find(rendered, "Service", "clinic-a-gateway").spec).toMatchObject({
      type: "ExternalName",
      externalName: "synapse-shards-gateway.shards.svc.cluster.local",
    });
    const tagged = await template(merged(TENANT, { synapse: { image: { tag: "1.157.2" } } }));
    expect(find(tagged, "SynapseTenant").spec.image).toEqual({ tag: "1.157.2" });
  });

  it("prevents another homeserver after a switch: configuration and keys are the same on a shard and with a Synapse of its own", async () => {
    const tenant = find(await template(TENANT), "Secret", "clinic-a-synapse-tenant");
    for (const values of [DEDICATED, HANDOVER]) {
      const own = find(await template(values), "Secret", "clinic-a-synapse");
      expect(content(own, "homeserver.yaml")).toBe(content(tenant, "homeserver.yaml"));
      expect(content(own, "signing.key")).toBe(content(tenant, "signing.key"));
      expect(parse(content(own, "dedicated.yaml"))).toMatchObject({
        server_name: "clinic-a.example",
        macaroon_secret_key: content(tenant, "macaroon-secret-key"),
        form_secret: content(tenant, "form-secret"),
        registration_shared_secret: content(tenant, "registration-shared-secret"),
      });
    }
    expect(parse(content(tenant, "homeserver.yaml"))).toMatchObject({
      public_baseurl: "https://matrix.clinic-a.example/",
      database: {
        name: "psycopg2",
        args: { host: "postgres.example", port: 5432, password: "database-secret", sslmode: "prefer" },
      },
      media_storage_providers: [
        {
          module: "s3_storage_provider.S3StorageProviderBackend",
          store_synchronous: true,
          config: { bucket: "clinic-a", access_key_id: "key-id", secret_access_key: "bucket-secret" },
        },
      ],
      max_upload_size: "100M",
    });
  });

  it("prevents requests past the gateway on the way: as long as a cluster is named, its gateway is behind the ingresses", async () => {
    const backends = async (values: Record<string, unknown>) =>
      (await template(values))
        .filter(({ kind }) => kind === "Ingress")
        .flatMap(({ spec }) => spec.rules[0].http.paths.map((path: any) => path.backend.service.name));
    expect(new Set(await backends(TENANT))).toEqual(new Set(["clinic-a-gateway"]));
    expect(new Set(await backends(HANDOVER))).toEqual(new Set(["clinic-a-gateway"]));
    expect(new Set(await backends(DEDICATED))).toEqual(new Set(["clinic-a-synapse"]));
    const rendered = await template(HANDOVER);
    expect(find(rendered, "SynapseTenant").spec.dedicated).toEqual({
      address: "clinic-a-synapse.clinic-a.svc.cluster.local:8008",
    });
    find(rendered, "StatefulSet", "clinic-a-synapse");
    expect((await template(DEDICATED)).some(({ kind }) => kind === "SynapseTenant")).toBe(false);
  });

  it("prevents a Synapse without the fence, or with rights it does not need", async () => {
    const { spec } = find(await template(DEDICATED), "StatefulSet").spec.template;
    const [container] = spec.containers;
    expect(container.command).toEqual(["python", "-m", "multi_synapse.dedicated"]);
    expect(container.args).toContain("--fence-revision-file=/etc/synapse/fence/revision");
    expect(spec).toMatchObject({
      automountServiceAccountToken: false,
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    });
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
    for (const probe of ["startupProbe", "readinessProbe", "livenessProbe"])
      expect(container[probe].httpGet).toEqual({ path: "/health", port: "http" });
    expect(container.terminationMessagePolicy).toBe("FallbackToLogsOnError");
    expect(spec.volumes).toContainEqual({ name: "media", emptyDir: {} });
    const local = find(
      await template(merged(DEDICATED, { synapse: { media: { s3: { bucket: "" } } } })),
      "StatefulSet",
    );
    expect(local.spec.volumeClaimTemplates[0].spec.resources.requests.storage).toBe("10Gi");
  });

  it("prevents a restart at each upgrade: the revision is beside the pod's template, not in it", async () => {
    const [first, second] = [await template(DEDICATED), await template(DEDICATED, ["--is-upgrade"])];
    const pod = (all: typeof first) => JSON.stringify(find(all, "StatefulSet").spec.template);
    expect(pod(first)).toBe(pod(second));
    expect(pod(first)).not.toContain("revision:");
    expect(find(first, "ConfigMap", "clinic-a-synapse-fence").data).toEqual({ revision: "1" });
    const changed = await template(
      merged(DEDICATED, { synapse: { additional: { a: { config: "enable_registration: true" } } } }),
    );
    expect(pod(changed)).not.toBe(pod(first));
  });

  it("prevents configuration that means something else than with Synapse: a later part replaces whole top-level keys, and the chart's own win", async () => {
    const additional = {
      "10-second": { config: "retention: {enabled: false}\nserver_notices: {system_mxid_localpart: a}\n" },
      "00-first": {
        config:
          "retention: {enabled: true, default_policy: {min_lifetime: 1d}}\nmax_avatar_size: 10485760\nrate: 0.17\n",
      },
      "20-third": { config: "public_baseurl: https://elsewhere.example/\nmodules: [{module: synapse.x.Y}]\n" },
    };
    const secret = find(
      await template(merged(TENANT, { synapse: { additional } })),
      "Secret",
      "clinic-a-synapse-tenant",
    );
    const text = content(secret, "homeserver.yaml");
    const config = parse(text);
    expect(config).toMatchObject({
      retention: { enabled: false },
      server_notices: { system_mxid_localpart: "a" },
      max_avatar_size: 10485760,
      rate: 0.17,
      public_baseurl: "https://matrix.clinic-a.example/",
    });
    expect(config.retention).toEqual({ enabled: false });
    expect(text).toContain("max_avatar_size: 10485760\n");
    expect(config.modules.map(({ module }: any) => module)).toEqual([
      "synapse.x.Y",
      "multi_synapse.well_known.WellKnown",
    ]);
  });

  it("prevents a server name that leads nowhere: it is delegated, by the homeserver itself, in every mode", async () => {
    const additional = { client: '{"org.example": {"a": 1}}', support: '{"support_page": "https://help.example"}' };
    const rendered = await template(merged(TENANT, { wellKnownDelegation: { additional } }));
    const config = parse(content(find(rendered, "Secret", "clinic-a-synapse-tenant"), "homeserver.yaml"));
    expect(config.modules).toEqual([
      {
        module: "multi_synapse.well_known.WellKnown",
        config: {
          server: { "m.server": "matrix.clinic-a.example:443" },
          support: { support_page: "https://help.example" },
        },
      },
    ]);
    expect(config.extra_well_known_client_content).toEqual({ "org.example": { a: 1 } });
    expect(find(rendered, "Ingress", "clinic-a-well-known").spec.rules[0]).toMatchObject({
      host: "clinic-a.example",
      http: { paths: [{ path: "/.well-known/matrix" }] },
    });
    const together = await template(merged(TENANT, { serverName: "matrix.clinic-a.example" }));
    expect(find(together, "Ingress").spec.rules[0].http.paths.map(({ path }: any) => path)).toContain(
      "/.well-known/matrix",
    );
    const without = await template(merged(TENANT, { wellKnownDelegation: { enabled: false } }));
    expect(
      parse(content(find(without, "Secret", "clinic-a-synapse-tenant"), "homeserver.yaml")).modules,
    ).toBeUndefined();
  });

  it("prevents new keys at each run where no cluster can be asked for those that exist", async () => {
    await expect(template(MINIMAL)).rejects.toThrow(
      /synapse\.formSecret, synapse\.macaroon.*not given, and no cluster can be asked/s,
    );
    const macaroon = { secret: "mine", secretKey: "key" };
    await expect(template(merged(MINIMAL, { synapse: { ...KEYS, macaroon } }))).rejects.toThrow(
      /synapse\.macaroon names the Secret "mine", which is not in the namespace "clinic-a" or cannot be read/,
    );
  });

  it.each([
    ["what is missing, all at once", { serverName: "" }, /serverName is required/],
    ["no host", { synapse: { ingress: { host: "" } } }, /synapse\.ingress\.host is required/],
    [
      "no database",
      { synapse: { postgres: { host: "", user: "" } } },
      /synapse\.postgres\.host is required\s+- synapse\.postgres\.user is required/,
    ],
    [
      "a cluster without a namespace",
      { synapse: { asTenantHook: { enabled: true, clusterId: "x" } } },
      /needs synapse\.asTenantHook\.clusterId .* and synapse\.asTenantHook\.namespace/,
    ],
    ["half a cluster", { synapse: { asTenantHook: { namespace: "x" } } }, /belong together/],
    ["a slip of the pen", { synapse: { image: { tga: "1" } } }, /'tga' not allowed/],
    [
      "a tag that is no release",
      { synapse: { image: { tag: "latest" } } },
      /\/synapse\/image\/tag.*'latest' does not match/,
    ],
    ["half a reference", { synapse: { postgres: { password: { value: null, secret: "x" } } } }, /'secretKey' required/],
    ["a value and a reference", { synapse: { macaroon: { secret: "x", secretKey: "y" } } }, /\/synapse\/macaroon/],
    [
      "YAML that is none",
      { synapse: { additional: { mine: { config: "- a\n- b" } } } },
      /synapse\.additional\.mine is not a YAML mapping/,
    ],
    [
      "JSON that is none",
      { wellKnownDelegation: { additional: { client: "{" } } },
      /wellKnownDelegation\.additional\.client is not a JSON object/,
    ],
    [
      "a bucket without a key",
      { synapse: { media: { s3: { accessKeyId: null } } } },
      /synapse\.media\.s3\.accessKeyId is required with a bucket/,
    ],
  ])("prevents a deployment of nonsense, and says in words what is wrong: %s", async (_, change, words) => {
    await expect(template(merged(DEDICATED, change))).rejects.toThrow(words);
  });

  it("prevents lost media: a tenant has a bucket, or no media at all", async () => {
    const local = merged(TENANT, { synapse: { media: { s3: { bucket: "" } } } });
    await expect(template(local)).rejects.toThrow(/synapse\.media\.s3\.bucket is required as a tenant/);
    const none = merged(local, { synapse: { additional: { media: { config: "enable_media_repo: false" } } } });
    expect(find(await template(none), "SynapseTenant").metadata.name).toBe("clinic-a");
  });
});
