import { expect, it, describe } from "vitest";
import { parse } from "yaml";
import {
  CHART,
  content,
  find,
  helm,
  HOOK,
  KEYS,
  type Manifest,
  merged,
  MINIMAL,
  template,
  type Values,
  withoutHelm,
} from "./support/matrix-stack.ts";

const STANDALONE = merged(MINIMAL, { synapse: KEYS });
const TENANT = merged(STANDALONE, { synapse: { asTenantHook: { enabled: true, ...HOOK } } });
const DEDICATED = merged(STANDALONE, { synapse: { asTenantHook: { enabled: false, ...HOOK } } });
const withoutNull = (values: Values): Values =>
  JSON.parse(JSON.stringify(values, (_, value: unknown) => value ?? undefined)) as Values;

describe.skipIf(withoutHelm)("chart matrix-stack", () => {
  it("passes helm lint in each mode", async () => {
    for (const values of [STANDALONE, TENANT, DEDICATED])
      expect(await helm(["lint", "--strict", CHART], values)).toContain("0 chart(s) failed");
  });

  it("puts all of a tenant but its SynapseTenant into the release's namespace, and lets the controller read its Secrets there", async () => {
    const rendered = await template(TENANT);
    const tenant = find(rendered, "SynapseTenant");
    expect(tenant.metadata).toMatchObject({ name: "clinic-a", namespace: "shards" });
    expect(tenant.spec).toEqual({
      clusterId: "synapse-shards",
      serverName: "clinic-a.example",
      secretName: "clinic-a-synapse-tenant",
      secretNamespace: "clinic-a",
      revision: 1,
      reclaimPolicy: "Retain",
    });
    expect(rendered.filter(({ metadata }) => metadata.namespace !== undefined)).toEqual([tenant]);
    const secret = find(rendered, "Secret", "clinic-a-synapse-tenant");
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
    expect(find(rendered, "Role", "clinic-a-synapse-tenant").rules).toEqual([
      { apiGroups: [""], resources: ["secrets"], resourceNames: ["clinic-a-synapse-tenant"], verbs: ["get"] },
    ]);
    expect(find(rendered, "RoleBinding", "clinic-a-synapse-tenant").subjects).toEqual([
      { kind: "ServiceAccount", name: "synapse-shards-controller", namespace: "shards" },
    ]);
    expect(rendered.some(({ kind }) => kind === "StatefulSet" || kind === "Job")).toBe(false);
    expect(find(rendered, "Service", "clinic-a-gateway").spec).toMatchObject({
      type: "ExternalName",
      externalName: "synapse-shards-gateway.shards.svc.cluster.local",
    });
    const tagged = await template(merged(TENANT, { synapse: { image: { tag: "1.157.2" } } }));
    expect(find(tagged, "SynapseTenant").spec.image).toEqual({ tag: "1.157.2" });
  });

  it("leads the admin API's path to the cluster's entrance for administrators where that is asked for", async () => {
    const hook = { synapse: { asTenantHook: { adminAccess: true } } };
    const backends = (rendered: Manifest[]) =>
      find(rendered, "Ingress", "clinic-a-synapse").spec.rules[0].http.paths.map(
        ({ path, backend }: { path: string; backend: { service: { name: string } } }) => [path, backend.service.name],
      );
    for (const mode of [TENANT, DEDICATED]) {
      const rendered = await template(merged(mode, hook));
      expect(backends(rendered)).toContainEqual(["/_synapse/admin", "clinic-a-gateway-admin"]);
      expect(find(rendered, "Service", "clinic-a-gateway-admin").spec).toMatchObject({
        externalName: "synapse-shards-gateway-admin.shards.svc.cluster.local",
        ports: [{ name: "http", port: 8449 }],
      });
      const without = await template(mode);
      expect(JSON.stringify(without)).not.toContain("gateway-admin");
    }
    // There, nothing checks who comes.
    expect(JSON.stringify(await template(merged(STANDALONE, hook)))).not.toContain("/_synapse/admin");
  });

  it("lets releases of one name in several namespaces be tenants of one cluster", async () => {
    const rendered = await template(merged(TENANT, { synapse: { asTenantHook: { tenantName: "other-name" } } }));
    expect(find(rendered, "SynapseTenant").metadata.name).toBe("other-name");
    const secret = find(rendered, "Secret", "clinic-a-synapse-tenant");
    expect(secret.metadata.labels?.["synapse-shards.io/tenant"]).toBe("other-name");
  });

  it("says of a tenant when it sleeps, if that is not as the cluster has it", async () => {
    expect(find(await template(TENANT), "SynapseTenant").spec).not.toHaveProperty("hibernation");
    const withHibernation = (hibernation: object) =>
      template(merged(TENANT, { synapse: { asTenantHook: { hibernation } } }));
    for (const hibernation of [{ mode: "Never" }, { mode: "Auto", afterIdleSeconds: 900 }])
      expect(find(await withHibernation(hibernation), "SynapseTenant").spec.hibernation).toEqual(hibernation);
    await expect(withHibernation({ mode: "Sometimes" })).rejects.toThrow(/hibernation\/mode/);
    await expect(withHibernation({ afterIdleSeconds: 900 })).rejects.toThrow(/hibernation/);
  });

  it("renders the same manifests each time, without a cluster and without the content of any Secret", async () => {
    const credential = (secret: string) => ({ value: null, secret, secretKey: "key" });
    const references = {
      postgres: { password: credential("postgres") },
      media: { s3: { accessKeyId: credential("s3"), secretAccessKey: credential("s3") } },
      macaroon: credential("macaroon"),
      signingKey: null,
      registrationSharedSecret: null,
      formSecret: null,
      additional: { mail: { configSecret: "mail", configSecretKey: "mail.yaml" } },
    };
    for (const values of [TENANT, DEDICATED, STANDALONE]) {
      const given = withoutNull(merged(values, { synapse: references }));
      const rendered = await template(given);
      expect(await template(given)).toEqual(rendered);
      // What a Job makes is nothing that Helm would take away again.
      expect(rendered.filter(({ kind }) => kind === "Secret").map(({ metadata }) => metadata.name)).toEqual([
        "clinic-a-synapse-tenant",
      ]);
      const { annotations } = find(rendered, "Job", "clinic-a-init-secrets").metadata;
      expect(annotations?.["helm.sh/hook"]).toBe("pre-install,pre-upgrade");
    }
    const rendered = await template(withoutNull(merged(TENANT, { synapse: references })));
    expect(find(rendered, "SynapseTenant").spec.secretRefs).toEqual([
      { for: "homeserver.yaml", name: "mail", key: "mail.yaml" },
      { for: "homeserver.yaml", path: "/database/args/password", name: "postgres", key: "key" },
      { for: "homeserver.yaml", path: "/media_storage_providers/0/config/access_key_id", name: "s3", key: "key" },
      { for: "homeserver.yaml", path: "/media_storage_providers/0/config/secret_access_key", name: "s3", key: "key" },
      { for: "form-secret", name: "clinic-a-generated", key: "SYNAPSE_FORM_SECRET" },
      { for: "macaroon-secret-key", name: "macaroon", key: "key" },
      { for: "registration-shared-secret", name: "clinic-a-generated", key: "SYNAPSE_REGISTRATION_SHARED_SECRET" },
      { for: "signing.key", name: "clinic-a-generated", key: "SYNAPSE_SIGNING_KEY" },
    ]);
    const [granted] = find(rendered, "Role", "clinic-a-synapse-tenant").rules ?? [];
    expect(granted?.resourceNames).toEqual([
      "clinic-a-generated",
      "clinic-a-synapse-tenant",
      "macaroon",
      "mail",
      "postgres",
      "s3",
    ]);
  });

  it("gives a homeserver the same configuration and keys on a shard and dedicated", async () => {
    const tenant = find(await template(TENANT), "Secret", "clinic-a-synapse-tenant");
    for (const values of [STANDALONE, DEDICATED])
      expect(find(await template(values), "Secret", "clinic-a-synapse-tenant").data).toEqual(tenant.data);
    const chart = find(await template(STANDALONE), "ConfigMap", "clinic-a-synapse").data ?? {};
    expect(parse(chart["dedicated.yaml"] ?? "")).toMatchObject({ server_name: "clinic-a.example" });
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

  it("leads ingresses to the cluster's gateway as long as a cluster is named", async () => {
    const backends = async (values: Record<string, unknown>) =>
      (await template(values))
        .filter(({ kind }) => kind === "Ingress")
        .flatMap(({ spec }) => spec.rules[0].http.paths.map((path: any) => path.backend.service.name));
    expect(new Set(await backends(TENANT))).toEqual(new Set(["clinic-a-gateway"]));
    expect(new Set(await backends(DEDICATED))).toEqual(new Set(["clinic-a-gateway"]));
    expect(new Set(await backends(STANDALONE))).toEqual(new Set(["clinic-a-synapse"]));
    const rendered = await template(DEDICATED);
    expect(find(rendered, "SynapseTenant").spec.dedicated).toEqual({
      address: "clinic-a-synapse.clinic-a.svc.cluster.local:8008",
      metricsPort: 9001,
    });
    find(rendered, "StatefulSet", "clinic-a-synapse");
    expect((await template(STANDALONE)).some(({ kind }) => kind === "SynapseTenant")).toBe(false);
  });

  it("gives a dedicated Synapse the fence, and no rights that it does not need", async () => {
    const { spec } = find(await template(STANDALONE), "StatefulSet").spec.template;
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
    expect(spec.volumes).toContainEqual({ name: "media", emptyDir: { sizeLimit: "20Gi" } });
    const [composer] = spec.initContainers;
    expect(composer.securityContext).toEqual(container.securityContext);
    const old = await template(merged(STANDALONE, { synapse: { handoverSeconds: 7 } }));
    expect(find(old, "StatefulSet").spec.template.spec.containers[0].args).toContain("--handover-seconds=7");
    const local = find(
      await template(merged(STANDALONE, { synapse: { media: { s3: { bucket: "" } } } })),
      "StatefulSet",
    );
    expect(local.spec.volumeClaimTemplates[0].spec.resources.requests.storage).toBe("10Gi");
  });

  it("restarts a dedicated Synapse for a changed configuration, and not for a new revision", async () => {
    const [first, second] = [await template(STANDALONE), await template(STANDALONE, ["--is-upgrade"])];
    const pod = (all: typeof first) => JSON.stringify(find(all, "StatefulSet").spec.template);
    expect(pod(first)).toBe(pod(second));
    expect(pod(first)).not.toContain("revision:");
    expect(find(first, "ConfigMap", "clinic-a-synapse-fence").data).toEqual({ revision: "1" });
    const changed = await template(
      merged(STANDALONE, { synapse: { additional: { a: { config: "enable_registration: true" } } } }),
    );
    expect(pod(changed)).not.toBe(pod(first));
  });

  it("merges parts of homeserver.yaml as Synapse does: a later part replaces whole top-level keys, and the chart's own win", async () => {
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

  it("delegates the server name, by the homeserver itself, in each mode", async () => {
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

  it("takes names of hosts and Secrets as templates", async () => {
    const named = (name: string) => ({ value: null, secret: `{{ .Release.Name }}-${name}` });
    const values = withoutNull(
      merged(TENANT, {
        global: { domain: "clinic-a.example" },
        serverName: "{{ .Values.global.domain }}",
        synapse: {
          postgres: { host: "{{ .Release.Name }}-db.example", password: { ...named("postgres"), secretKey: "k" } },
          macaroon: { ...named("keys"), secretKey: "{{ .Release.Namespace }}" },
          additional: { mail: { configSecret: "{{ .Release.Name }}-mail", configSecretKey: "mail.yaml" } },
          ingress: { host: "matrix.{{ .Values.global.domain }}", tlsSecret: "{{ .Release.Name }}-tls" },
        },
      }),
    );
    const rendered = await template(values);
    expect(find(rendered, "SynapseTenant").spec).toMatchObject({
      serverName: "clinic-a.example",
      secretRefs: [
        { for: "homeserver.yaml", name: "clinic-a-mail", key: "mail.yaml" },
        { path: "/database/args/password", name: "clinic-a-postgres", key: "k" },
        { for: "macaroon-secret-key", name: "clinic-a-keys", key: "clinic-a" },
      ],
    });
    expect(find(rendered, "Ingress", "clinic-a-synapse").spec).toMatchObject({
      tls: [{ hosts: ["matrix.clinic-a.example"], secretName: "clinic-a-tls" }],
      rules: [{ host: "matrix.clinic-a.example" }],
    });
    expect(find(rendered, "Ingress", "clinic-a-well-known").spec.rules[0].host).toBe("clinic-a.example");
    const config = parse(content(find(rendered, "Secret", "clinic-a-synapse-tenant"), "homeserver.yaml"));
    expect(config).toMatchObject({
      public_baseurl: "https://matrix.clinic-a.example/",
      database: { args: { host: "clinic-a-db.example" } },
    });
  });

  it("leads paths of other Services there, and refuses what the gateway or an Ingress could not keep apart", async () => {
    const paths = (...additionalPaths: unknown[]) => ({ synapse: { ingress: { additionalPaths } } });
    const service = { name: "{{ .Release.Name }}-hooks", port: { number: 80 } };
    const led = (rendered: Manifest[]) =>
      find(rendered, "Ingress", "clinic-a-synapse").spec.rules[0].http.paths.map(({ path, backend }: any) => [
        path,
        backend.service,
      ]);
    for (const mode of [TENANT, DEDICATED, STANDALONE]) {
      const hooks = { path: "/_matrix/hookshot", availability: "only_externally", service };
      const rendered = await template(merged(mode, paths("/_synapse/x", hooks)));
      expect(led(rendered)).toContainEqual(["/_matrix/hookshot", { name: "clinic-a-hooks", port: { number: 80 } }]);
      expect(led(rendered).map(([path]: [string]) => path)).toContain("/_synapse/x");
    }
    // Nothing leads there anyway.
    const blocked = await template(merged(TENANT, paths({ path: "/_synapse/admin", availability: "blocked" })));
    expect(JSON.stringify(led(blocked))).not.toContain("/_synapse/admin");
    const leading = (path: string, availability: string) =>
      template(merged(TENANT, paths({ path, availability, service })));
    await expect(leading("/_matrix/x", "internally_and_externally")).rejects.toThrow(/use only_externally/);
    // Of which /_synapse/client would have to be kept from clients, too.
    await expect(leading("/_synapse", "blocked")).rejects.toThrow(/\/_synapse is blocked/);
    await expect(leading("/", "blocked")).rejects.toThrow(/additionalPaths: \/ is blocked, and an Ingress has nothing/);
    const open = { synapse: { asTenantHook: { adminAccess: true } } };
    for (const path of ["/_synapse", "/_synapse/admin", "/_synapse/admin/", "/_synapse/admin/v1/users"])
      await expect(
        template(merged(merged(TENANT, open), paths({ path, availability: "blocked" }))),
        path,
      ).rejects.toThrow(`${path} is blocked, and `);
    await template(merged(merged(TENANT, open), paths({ path: "/_synapse/mas", availability: "blocked" })));
    await expect(leading("/_matrix/x", "blocked")).rejects.toThrow(
      /\/_matrix\/x is blocked, and an Ingress has nothing/,
    );
    await expect(template(merged(TENANT, paths({ path: "/x", availability: "only_externally" })))).rejects.toThrow(
      /\/x has no service to lead to/,
    );
  });

  it("gives a homeserver its bridges by Secrets in each mode, and further names by which it is called", async () => {
    const appservices = [{ secret: "{{ .Release.Name }}-bridge", secretKey: "registration.yaml" }];
    const values = { synapse: { appservices, hosts: ["chat.{{ .Release.Namespace }}.svc.cluster.local."] } };
    const ref = { for: "app-service", name: "clinic-a-bridge", key: "registration.yaml" };
    const tenant = await template(merged(TENANT, values));
    expect(find(tenant, "SynapseTenant").spec).toMatchObject({
      secretRefs: [ref],
      hosts: ["chat.clinic-a.svc.cluster.local"],
    });
    expect(find(tenant, "Role", "clinic-a-synapse-tenant").rules?.[0]?.resourceNames).toContain("clinic-a-bridge");
    const inMap = { synapse: { appservices: [...appservices, { configMap: "bot", configMapKey: "k" }] } };
    const dedicated = await template(merged(DEDICATED, inMap));
    expect(JSON.parse(find(dedicated, "ConfigMap", "clinic-a-synapse").data?.["refs.json"] ?? "")).toEqual([
      ref,
      { for: "app-service", configMap: "bot", key: "k" },
    ]);
    // The controller reads Secrets alone, and the API server refuses what it does not know.
    expect(find(dedicated, "SynapseTenant").spec.secretRefs).toEqual([ref]);
    const { volumes } = find(dedicated, "StatefulSet").spec.template.spec;
    expect(volumes.find(({ name }: any) => name === "refs").projected.sources).toEqual([
      { secret: { name: "clinic-a-bridge", items: [{ key: "registration.yaml", path: "0" }] } },
      { configMap: { name: "bot", items: [{ key: "k", path: "1" }] } },
    ]);
  });

  it("checks a dedicated Synapse's configuration before an upgrade changes anything, as the process will have it", async () => {
    const volumes = {
      checkConfigHook: { enabled: true },
      extraVolumes: [
        { name: "both", emptyDir: {} },
        { name: "later", emptyDir: {}, mountContext: "runtime" },
      ],
      extraVolumeMounts: [
        { name: "both", mountPath: "/both", mountContext: "both" },
        { name: "later", mountPath: "/later", mountContext: "runtime" },
      ],
      hostAliases: [{ ip: "192.0.2.1", hostnames: ["db.example"] }],
    };
    for (const mode of [STANDALONE, DEDICATED]) {
      const rendered = await template(merged(mode, { synapse: volumes }));
      const name = "clinic-a-synapse-check-config";
      expect(find(rendered, "Secret", name).data).toEqual(find(rendered, "Secret", "clinic-a-synapse-tenant").data);
      expect(find(rendered, "ConfigMap", name).data).toEqual(find(rendered, "ConfigMap", "clinic-a-synapse").data);
      const weights = ["Secret", "ConfigMap", "Job"].map((kind) => {
        const { annotations } = find(rendered, kind, name).metadata;
        expect(annotations?.["helm.sh/hook"]).toBe("pre-install,pre-upgrade");
        return Number(annotations?.["helm.sh/hook-weight"]);
      });
      expect(weights).toEqual([-4, -4, 0]);
      const check = find(rendered, "Job", name).spec.template.spec;
      const process = find(rendered, "StatefulSet").spec.template.spec;
      expect(check.initContainers).toEqual(process.initContainers);
      const mounted = ({ containers }: any) => containers[0].volumeMounts.map((mount: any) => mount.mountPath);
      expect([mounted(check).includes("/both"), mounted(check).includes("/later")]).toEqual([true, false]);
      expect([mounted(process).includes("/both"), mounted(process).includes("/later")]).toEqual([true, true]);
      expect(JSON.stringify(rendered)).not.toContain("mountContext");
      expect(process.hostAliases).toEqual(volumes.hostAliases);
      expect(find(rendered, "StatefulSet").spec.replicas).toBe(1);
    }
    const off = await template(merged(STANDALONE, { synapse: { replicas: 0 } }));
    expect(off.some(({ metadata }) => metadata.name.includes("check-config"))).toBe(false);
    expect(find(off, "StatefulSet").spec.replicas).toBe(0);
    const tenant = await template(merged(TENANT, { synapse: volumes }));
    expect(tenant.some(({ kind }) => kind === "Job" || kind === "StatefulSet")).toBe(false);
  });

  it.each<[string, Values, RegExp]>([
    ["Redis", { redis: { host: "x" } }, /synapse\.redis: a homeserver with workers has a Redis of its own/],
    ["arguments", { extraArgs: ["-v"] }, /synapse\.extraArgs: give options in synapse\.additional/],
    ["no process", { replicas: 0 }, /a tenant is stopped by `synapse-shards tenant suspend`/],
    ["a ConfigMap", { appservices: [{ configMap: "a", configMapKey: "b" }] }, /the ConfigMap a is not for tenants/],
    ["a host that is none", { hosts: ["https://x"] }, /\/synapse\/hosts/],
  ])("says why a tenant cannot have what an ess-helm user may have: %s", async (_, synapse, words) => {
    await expect(template(merged(TENANT, { synapse }))).rejects.toThrow(words);
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
    ["a misspelt key", { synapse: { image: { tga: "1" } } }, /'tga' not allowed/],
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
  ])("says in words what is wrong with the values: %s", async (_, change, words) => {
    await expect(template(merged(STANDALONE, change))).rejects.toThrow(words);
  });

  it("demands a bucket of a tenant, or no media at all", async () => {
    const local = merged(TENANT, { synapse: { media: { s3: { bucket: "" } } } });
    await expect(template(local)).rejects.toThrow(/synapse\.media\.s3\.bucket is required as a tenant/);
    const none = merged(local, { synapse: { additional: { media: { config: "enable_media_repo: false" } } } });
    expect(find(await template(none), "SynapseTenant").metadata.name).toBe("clinic-a");
  });
});
