import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { run } from "../kubernetes/support/run.ts";
import {
  companion,
  COMPANION,
  CONTRACT,
  ESS_HELM,
  ESS_VALUES,
  essHelm,
  HOSTNAMES,
  plainNames,
  TENANT,
} from "./support/ess-helm.ts";
import { content, find, helm, merged, withoutHelm, type Manifest, type Values } from "./support/matrix-stack.ts";

const { homeserver, authentication, calls, hookshot } = CONTRACT;
const VALUES = merged(HOSTNAMES, ESS_VALUES, TENANT);
const WITH_HOOKSHOT = {
  hookshot: {
    enabled: true,
    ingress: { host: "hookshot.example.org" },
    additional: { tenant: { config: `bridge: {url: ${homeserver.endpoint}}` } },
  },
  initSecrets: { labels: { "synapse-shards.io/tenant": "ess-tenant" } },
};

const homeserverOf = (rendered: Manifest[]) =>
  parse(content(find(rendered, "Secret", "ess-tenant-synapse-tenant"), "homeserver.yaml")) as Record<string, any>;
const pathsOf = (rendered: Manifest[], name: string): Map<string, any> =>
  new Map(
    find(rendered, "Ingress", name).spec.rules[0].http.paths.map(({ path, backend }: any) => [path, backend.service]),
  );
const idOf = ({ kind, metadata }: Manifest) => `${kind}/${metadata.namespace ?? "ess"}/${metadata.name}`;

it("changes at most ten lines of ess-helm's values", () => {
  const text = readFileSync(join(COMPANION, "ess-values.yaml"), "utf8");
  const lines = text.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("#"));
  expect(lines.length).toBeLessThanOrEqual(10);
});

it("shares with matrix-stack what is the same, word for word", async () => {
  const script = resolve(COMPANION, "../share.mjs");
  await expect(run(process.execPath, [script, "--check"])).resolves.toBe("");
});

describe.skipIf(withoutHelm)("chart synapse-tenant", () => {
  it("passes helm lint with the values of ess-helm's users", async () => {
    for (const values of [VALUES, merged(VALUES, WITH_HOOKSHOT)])
      expect(await helm(["lint", "--strict", COMPANION], values)).toContain("0 chart(s) failed");
  });

  it("is where ess-helm's components look for the homeserver, which has that name", async () => {
    const rendered = await companion(VALUES);
    expect(find(rendered, "Service", homeserver.service).spec).toEqual({
      type: "ExternalName",
      externalName: "synapse-shards-gateway.shards.svc.cluster.local",
      ports: [{ name: "http", port: homeserver.port, targetPort: homeserver.port, protocol: "TCP" }],
    });
    const tenant = find(rendered, "SynapseTenant");
    expect(tenant.metadata).toMatchObject({ name: "ess-tenant", namespace: "shards" });
    expect(tenant.spec).toMatchObject({
      serverName: "example.org",
      secretNamespace: "ess",
      hosts: [new URL(homeserver.endpoint).hostname, "ess-synapse.ess.svc"],
    });
    const named = { ess: { release: "chat" }, synapse: { hosts: ["{{ .Release.Name }}.ess.svc"] } };
    const other = await companion(merged(VALUES, named, { clusterDomain: "k8s.example." }));
    expect(find(other, "Service", "chat-synapse").spec.externalName).toBe(
      "synapse-shards-gateway.shards.svc.k8s.example",
    );
    expect(find(other, "SynapseTenant").spec.hosts).toEqual([
      "chat-synapse.ess.svc.k8s.example",
      "chat-synapse.ess.svc",
      "ess-tenant.ess.svc",
    ]);
  });

  it("writes what Matrix Authentication Service and the homeserver share to both sides, and neither holds it in its values", async () => {
    const rendered = await companion(VALUES);
    const written = find(rendered, "Secret", "ess-tenant-mas-config") as Manifest & {
      stringData: Record<string, string>;
    };
    expect(parse(written.stringData["mas.yaml"] ?? "")).toEqual({
      matrix: {
        kind: authentication.kind,
        homeserver: "example.org",
        endpoint: homeserver.endpoint,
        secret_file: `${authentication.secretsAt}/ess-tenant-mas/SYNAPSE_SHARED_SECRET`,
      },
    });
    expect(homeserverOf(rendered)).toMatchObject({ ...authentication.options, ...calls.options });
    expect(find(rendered, "SynapseTenant").spec.secretRefs).toContainEqual({
      for: "homeserver.yaml",
      path: "/matrix_authentication_service/secret",
      name: "ess-tenant-mas",
      key: "SYNAPSE_SHARED_SECRET",
    });
    expect(find(rendered, "Role", "ess-tenant-synapse-tenant").rules?.[0]?.resourceNames).toContain("ess-tenant-mas");
    const { containers } = find(rendered, "Job", "ess-tenant-init-secrets").spec.template.spec;
    expect(containers.map(({ name, args }: any) => [name, args.slice(1)])).toEqual([
      [
        "generated",
        [
          "ess-tenant-generated",
          "ess-tenant",
          "SYNAPSE_FORM_SECRET",
          "SYNAPSE_MACAROON",
          "SYNAPSE_REGISTRATION_SHARED_SECRET",
          "SYNAPSE_SIGNING_KEY",
        ],
      ],
      ["mas", ["ess-tenant-mas", "ess-tenant", "SYNAPSE_SHARED_SECRET"]],
    ]);
    // A Secret of one's own is made by nobody.
    const own = { secret: "{{ .Release.Namespace }}-shared", secretKey: "k" };
    const given = await companion(merged(VALUES, { matrixAuthenticationService: { synapseSharedSecret: own } }));
    expect(JSON.stringify(find(given, "Job", "ess-tenant-init-secrets"))).not.toContain("ess-shared");
    expect(find(given, "SynapseTenant").spec.secretRefs).toContainEqual({
      for: "homeserver.yaml",
      path: "/matrix_authentication_service/secret",
      name: "ess-shared",
      key: "k",
    });
  });

  it("leads signing in to Matrix Authentication Service, all else of Matrix to the gateway, and nothing to the admin API", async () => {
    const paths = pathsOf(await companion(VALUES), "ess-tenant-synapse");
    for (const path of authentication.paths)
      expect([path, paths.get(path)]).toEqual([
        path,
        { name: authentication.service, port: { name: authentication.port.name } },
      ]);
    expect([...paths.keys()].filter((path) => !(authentication.paths as readonly string[]).includes(path))).toEqual([
      "/_matrix",
      "/_synapse/client",
    ]);
    expect(paths.get("/_matrix")).toEqual({ name: "ess-tenant-gateway", port: { name: "http" } });
    const admin = { synapse: { asTenantHook: { adminAccess: true } } };
    expect(pathsOf(await companion(merged(VALUES, admin)), "ess-tenant-synapse").get("/_synapse/admin").name).toBe(
      "ess-tenant-gateway-admin",
    );
    const without = await companion(
      merged(VALUES, { matrixAuthenticationService: { enabled: false }, matrixRTC: { enabled: false } }),
    );
    expect([...pathsOf(without, "ess-tenant-synapse").keys()]).toEqual(["/_matrix", "/_synapse/client"]);
    expect(homeserverOf(without)).not.toHaveProperty("matrix_authentication_service");
    expect(homeserverOf(without)).not.toHaveProperty("matrix_rtc");
  });

  it("leaves /.well-known/matrix/ to ess-helm alone", async () => {
    const rendered = await companion(VALUES);
    expect(JSON.stringify(rendered)).not.toContain("/.well-known/");
    expect(homeserverOf(rendered)).not.toHaveProperty("serve_server_wellknown");
    expect(homeserverOf(rendered)).not.toHaveProperty("modules");
  });

  it("takes hookshot's registration from the Secret that ess-helm makes, or that its values name", async () => {
    const bridged = await companion(merged(VALUES, WITH_HOOKSHOT));
    const refs = (rendered: Manifest[]) =>
      find(rendered, "SynapseTenant").spec.secretRefs.filter((ref: any) => ref.for === "app-service");
    expect(refs(bridged)).toEqual([{ for: "app-service", name: hookshot.secret, key: hookshot.key }]);
    expect(homeserverOf(bridged)["experimental_features"]).toMatchObject(hookshot.options.experimental_features);
    const named = { hookshot: { appserviceRegistration: { secret: "bridge", secretKey: "r.yaml" } } };
    expect(refs(await companion(merged(VALUES, WITH_HOOKSHOT, named)))).toEqual([
      { for: "app-service", name: "bridge", key: "r.yaml" },
    ]);
  });

  it("lets ingress-nginx take Matrix's uploads and long polls, unless the values say otherwise", async () => {
    const annotations = async (values: Values) =>
      find(await companion(merged(VALUES, values)), "Ingress", "ess-tenant-synapse").metadata.annotations;
    const [size, time] = ["body-size", "read-timeout"].map((name) => `nginx.ingress.kubernetes.io/proxy-${name}`);
    expect(await annotations({})).toEqual({ "cert-manager.io/cluster-issuer": "letsencrypt" });
    expect(await annotations({ ingress: { controllerType: "ingress-nginx", annotations: { [size!]: "1g" } } })).toEqual(
      {
        "cert-manager.io/cluster-issuer": "letsencrypt",
        [size!]: "1g",
        [time!]: "120",
      },
    );
  });

  it.each<[string, Values, RegExp]>([
    [
      "a Synapse beside it",
      { synapse: { enabled: true } },
      /synapse\.enabled is true, and ess-helm would run a second/,
    ],
    ["no cluster", { synapse: { asTenantHook: { clusterId: "" } } }, /needs synapse\.asTenantHook\.clusterId/],
    [
      "no secret to share",
      { matrixAuthenticationService: { synapseSharedSecret: null } },
      /synapseSharedSecret: set \{secret: ess-tenant-mas, secretKey: SYNAPSE_SHARED_SECRET\}/,
    ],
    [
      "a shared secret as a value",
      { matrixAuthenticationService: { synapseSharedSecret: { value: "x", secret: null, secretKey: null } } },
      /synapseSharedSecret/,
    ],
    ["workers", { synapse: { workers: { pusher: { enabled: true } } } }, /synapse\.workers\.pusher: a tenant is one/],
    [
      "volumes",
      { synapse: { extraVolumes: [{ name: "x" }] } },
      /synapse\.extraVolumes: a shard's pods are no tenant's/,
    ],
    ["a release of ess-helm's name", { ess: { release: "ess-tenant" } }, /has the name of ess-helm's/],
    [
      "a registration in a ConfigMap",
      { synapse: { appservices: [{ configMap: "bridge", configMapKey: "x" }] } },
      /the ConfigMap bridge is not for tenants/,
    ],
    ["a misspelt key of its own", { synapse: { asTenantHook: { clusterID: "x" } } }, /'clusterID' not allowed/],
    ["a dedicated one", { synapse: { asTenantHook: { enabled: false } } }, /asTenantHook\/enabled/],
    ["no host of the calls", { matrixRTC: { ingress: { host: "" } } }, /matrixRTC\.ingress\.host is required/],
  ])("says in words what is wrong with the values: %s", async (_, change, words) => {
    await expect(companion(withoutNull(merged(VALUES, change)))).rejects.toThrow(words);
  });
});

const withoutNull = (values: Values): Values =>
  JSON.parse(JSON.stringify(values, (_, value: unknown) => value ?? undefined)) as Values;

/** Where the chart itself is there: what is recorded of it is true, and both charts fit together. */
describe.skipIf(withoutHelm || ESS_HELM === "")("ess-helm (needs ESS_HELM_CHART)", () => {
  it("has the names, ports, paths and options that are recorded of it", async () => {
    const rendered = await essHelm(HOSTNAMES);
    const port = { port: homeserver.port };
    expect(find(rendered, "Service", homeserver.service).spec.ports).toContainEqual(expect.objectContaining(port));
    expect(find(rendered, "Service", authentication.service).spec.ports).toContainEqual(
      expect.objectContaining({ name: authentication.port.name, port: authentication.port.number }),
    );
    const led = [...pathsOf(rendered, "ess-synapse")].filter(([, { name }]) => name === authentication.service);
    expect(led.map(([path]) => path).toSorted()).toEqual(authentication.paths.toSorted());
    const mas = plainNames(
      find(rendered, "ConfigMap", authentication.service).data?.["mas-config-overrides.yaml"] ?? "",
    );
    expect(parse(mas).matrix).toMatchObject({
      kind: authentication.kind,
      homeserver: "example.org",
      endpoint: homeserver.endpoint,
      secret_file: expect.stringMatching(`^${authentication.secretsAt}/ess-generated/`) as string,
    });
    const synapse = plainNames(find(rendered, "ConfigMap", "ess-synapse").data?.["04-homeserver-overrides.yaml"] ?? "");
    expect(parse(synapse)).toMatchObject({ ...authentication.options, ...calls.options });
    const bridged = await essHelm(merged(HOSTNAMES, { hookshot: { enabled: true } }));
    const made = find(bridged, "Job", "ess-init-secrets").spec.template.spec.containers[0].args.join(" ");
    expect(made).toContain(`${hookshot.secret}:${hookshot.key}:`);
    const options = find(bridged, "ConfigMap", "ess-synapse").data?.["04-homeserver-overrides.yaml"] ?? "";
    expect(parse(options)).toMatchObject(hookshot.options);
  });

  it("finds the homeserver that the companion brings, by ess-values.yaml, and no object is of both", async () => {
    const [theirs, ours] = await Promise.all([
      essHelm(merged(HOSTNAMES, ESS_VALUES, WITH_HOOKSHOT)),
      companion(merged(VALUES, WITH_HOOKSHOT)),
    ]);
    const ids = new Set(theirs.map(idOf));
    expect(ours.map(idOf).filter((id) => ids.has(id))).toEqual([]);
    expect(theirs.filter(({ metadata }) => metadata.name.startsWith("ess-synapse"))).toEqual([]);

    const mas = find(theirs, "Deployment", authentication.service).spec.template.spec;
    expect(mas.initContainers[0].args).toContain(`${authentication.secretsAt}/ess-tenant-mas-config/mas.yaml`);
    for (const name of ["ess-tenant-mas", "ess-tenant-mas-config"]) {
      const volume = mas.volumes.find(({ secret }: any) => secret?.secretName === name)?.name as string;
      const mount = { name: volume, mountPath: `${authentication.secretsAt}/${name}` };
      for (const container of [...mas.initContainers.slice(0, 1), ...mas.containers])
        expect(container.volumeMounts).toContainEqual(expect.objectContaining(mount));
    }
    const web = JSON.parse(find(theirs, "ConfigMap", "ess-element-web").data?.["config.json"] ?? "{}");
    const client = { base_url: "https://matrix.example.org" };
    expect(web.default_server_config["m.homeserver"]).toEqual({ ...client, server_name: "example.org" });
    const wellKnown =
      theirs.find(({ kind, data }) => kind === "ConfigMap" && data?.["client"] !== undefined)?.data ?? {};
    expect(JSON.parse(wellKnown["client"] ?? "")).toMatchObject({ "m.homeserver": client });
    expect(JSON.parse(wellKnown["server"] ?? "")).toEqual({ "m.server": "matrix.example.org:443" });
    const jwt = find(theirs, "Deployment", "ess-matrix-rtc-authorisation-service").spec.template.spec;
    expect(jwt.containers[0].env).toContainEqual({
      name: calls.variable,
      value: `example.org=${homeserver.endpoint}`,
    });
    const bridge = find(theirs, "Secret", "ess-hookshot");
    expect(parse(content(bridge, "user-tenant")).bridge.url).toBe(homeserver.endpoint);
    expect(JSON.stringify(find(theirs, "Job", "ess-init-secrets"))).toContain("synapse-shards.io/tenant=ess-tenant");
  });
});
