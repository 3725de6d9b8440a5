import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { KubernetesControllerConfigSchema } from "../../src/platforms/kubernetes/controller-config.ts";
import { AdminAccess } from "../../src/gateway/admin-access.ts";
import { parseGatewayConfig } from "../../src/gateway/config.ts";
import { adminAccessView } from "../../src/model/admin-access.ts";
import type { Route } from "../../src/model/routes.ts";
import { run } from "../kubernetes/support/run.ts";

const CHART = resolve(import.meta.dirname, "../../charts/synapse-shards");
const withoutHelm = spawnSync("helm", ["version"]).status !== 0;

interface Manifest {
  kind: string;
  metadata: { name: string; namespace?: string };
  spec?: any;
  rules?: { apiGroups: string[]; resources: string[]; verbs: string[] }[];
  data?: Record<string, string>;
}

const helm = (verb: "template" | "lint", values: object, ...args: string[]) =>
  run(
    "helm",
    [verb, ...(verb === "template" ? ["cluster-a"] : []), CHART, "-n", "shards", "-f", "-", ...args],
    JSON.stringify(values),
  );

async function template(values: object = {}): Promise<Manifest[]> {
  const documents = parseAllDocuments(await helm("template", values)).map((document) => document.toJS() as Manifest);
  return documents.filter((manifest) => manifest !== null);
}
const find = (manifests: Manifest[], kind: string, name: string) => {
  const found = manifests.find((manifest) => manifest.kind === kind && manifest.metadata.name === name);
  if (!found) throw new Error(`no ${kind} ${name}`);
  return found;
};

function controllerConfig(manifests: Manifest[]) {
  const text = find(manifests, "ConfigMap", "cluster-a-controller").data?.["controller.yaml"] ?? "";
  return KubernetesControllerConfigSchema.parse(parse(text));
}

describe.skipIf(withoutHelm)("chart synapse-shards (needs helm)", () => {
  it("passes helm lint", async () => {
    expect(await helm("lint", {}, "--strict")).toContain("0 chart(s) failed");
  });

  it("packages what the checkout has, CRDs included", async () => {
    const directory = await mkdtemp(join(tmpdir(), "chart-"));
    try {
      await run("helm", ["package", CHART, "--destination", directory]);
      const [name = ""] = await readdir(directory);
      expect(name).toMatch(/^synapse-shards-\d+\.\d+\.\d+\.tgz$/);
      const rendered = (chart: string) =>
        run("helm", ["template", "cluster-a", chart, "-n", "shards", "--include-crds"]);
      expect(await rendered(join(directory, name))).toBe(await rendered(CHART));
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("runs all containers unprivileged, with a read-only root and bounded volumes", async () => {
    const manifests = await template({ gateway: { ingress: { enabled: true, hosts: ["*.example"] } } });
    const pods = manifests.flatMap(({ kind, spec }) =>
      kind === "Pod" ? [spec] : ["Deployment", "Job"].includes(kind) ? [spec.template.spec] : [],
    );
    expect(pods).toHaveLength(4);
    for (const pod of pods) {
      expect(pod.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } });
      for (const container of pod.containers) {
        expect(container.securityContext).toEqual({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] },
        });
        expect(container.resources.requests).toBeDefined();
        expect(container.image).toBe("ghcr.io/synapse-shards/synapse-shards:0.1.0");
      }
      const volumes = (pod.volumes ?? []) as { emptyDir?: { sizeLimit?: string } }[];
      expect(volumes.filter(({ emptyDir }) => emptyDir && emptyDir.sizeLimit === undefined)).toEqual([]);
    }
  });

  it("gives rights to the controller alone, in its namespace, and to read nodes", async () => {
    const manifests = await template();
    expect(find(manifests, "Deployment", "cluster-a-gateway").spec.template.spec.automountServiceAccountToken).toBe(
      false,
    );
    expect(manifests.filter(({ kind }) => kind === "ClusterRole").map(({ rules }) => rules)).toEqual([
      [{ apiGroups: [""], resources: ["nodes"], verbs: ["get", "list", "watch"] }],
    ]);
    const without = await template({ controller: { nodeMaintenance: false } });
    expect(without.map(({ kind }) => kind)).not.toContain("ClusterRole");
    const shared = await template({ controller: { tenantNamespaces: true } });
    // Secrets of other namespaces are for those to grant, one by one.
    const more = shared.find(
      ({ kind, metadata }) => kind === "ClusterRole" && metadata.name.endsWith("tenant-namespaces"),
    );
    expect(more?.rules).toEqual([
      { apiGroups: ["synapse-shards.io"], resources: ["synapsetenants"], verbs: ["get", "list", "watch"] },
      { apiGroups: ["synapse-shards.io"], resources: ["synapsetenants/status"], verbs: ["update"] },
      { apiGroups: [""], resources: ["namespaces"], verbs: ["get", "list", "watch"] },
    ]);
    const { rules = [] } = find(manifests, "Role", "cluster-a-controller");
    for (const { apiGroups, resources, verbs } of rules)
      expect([...apiGroups, ...resources, ...verbs]).not.toContain("*");
  });

  it("makes configurations that controller and gateway accept, whatever the values", async () => {
    for (const values of [
      {},
      {
        shard: {
          tolerations: [{ operator: "Exists" }],
          affinity: { nodeAffinity: {} },
          nodeSelector: { a: "b" },
          labels: { x: "y" },
        },
      },
      { controller: { tenantNamespaces: true } },
      { imagePullSecrets: [{ name: "mine" }], labels: { team: "matrix" }, gateway: { trustedProxies: ["10.0.0.0/8"] } },
    ]) {
      const manifests = await template(values);
      const controller: unknown = parse(find(manifests, "ConfigMap", "cluster-a-controller").data!["controller.yaml"]!);
      expect(KubernetesControllerConfigSchema.safeParse(controller).error?.issues).toBeUndefined();
      const gateway: unknown = JSON.parse(find(manifests, "ConfigMap", "cluster-a-gateway").data!["gateway.json"]!);
      expect(parseGatewayConfig(gateway, "chart")).toMatchObject({ http: { port: 8008 } });
    }
  });

  it("puts each value where it belongs", async () => {
    const manifests = await template({
      maxTenantsPerShard: 7,
      imagePullSecrets: [{ name: "mine" }],
      shard: {
        image: { registry: "registry.example" },
        extraEnv: [{ name: "A", value: "b" }],
        mediaCache: { maxMiB: 99 },
      },
      hibernation: { afterIdleSeconds: 900 },
      gateway: {
        replicas: 3,
        extraEnv: [{ name: "C", value: "d" }],
        annotations: { e: "f" },
        sleeping: { maxHeldPolls: 9 },
      },
      fleet: { imageTag: "1.150.0" },
    });
    const config = find(manifests, "ConfigMap", "cluster-a-controller").data!["controller.yaml"]!;
    expect(config).toMatch(/maxTenantsPerShard: 7/);
    expect(config).toMatch(/maxMiB: 99/);
    expect(config).toMatch(/afterIdleSeconds: 900/);
    const gateway = JSON.parse(find(manifests, "ConfigMap", "cluster-a-gateway").data!["gateway.json"]!) as object;
    expect(gateway).toMatchObject({ sleeping: { maxHeldPolls: 9, maxRememberedBytes: 67_108_864 } });
    expect(config).toMatch(/registry: registry\.example/);
    expect(config).toMatch(/pullSecrets:\s+- name: mine/);
    const { spec } = find(manifests, "Deployment", "cluster-a-gateway");
    expect(spec.replicas).toBe(3);
    expect(spec.template.metadata.annotations).toMatchObject({ e: "f" });
    expect(spec.template.spec.containers[0].env).toContainEqual({ name: "C", value: "d" });
    expect(spec.template.spec.imagePullSecrets).toEqual([{ name: "mine" }]);
    expect(find(manifests, "SynapseFleet", "cluster-a").spec.imageTag).toBe("1.150.0");
  });

  it("takes plots from the Prometheus of the values, which the controller alone may reach", async () => {
    const configIn = (manifests: Manifest[]) =>
      KubernetesControllerConfigSchema.parse(
        parse(find(manifests, "ConfigMap", "cluster-a-controller").data!["controller.yaml"]!),
      ).history;
    const plain = await template();
    expect(configIn(plain)).toEqual({});
    const url = "http://prometheus.monitoring:9090/prefix";
    const prometheus = [{ to: [{ namespaceSelector: {} }], ports: [{ port: 9090 }] }];
    const tokenSecret = { name: "prometheus-token" };
    const manifests = await template({
      history: { prometheus: { url, tokenSecret } },
      networkPolicies: { prometheus },
    });
    const labels = { namespace: "shards", cluster_id: "cluster-a" };
    const tokenFile = "/run/synapse-shards/prometheus/token";
    expect(configIn(manifests)).toEqual({ prometheus: { url, labels, tokenFile } });
    const { volumes, containers } = find(manifests, "Deployment", "cluster-a-controller").spec.template.spec;
    expect(volumes).toContainEqual(
      expect.objectContaining({ secret: { secretName: "prometheus-token", items: [{ key: "token", path: "token" }] } }),
    );
    expect(containers[0].volumeMounts).toContainEqual(
      expect.objectContaining({ name: "prometheus", mountPath: "/run/synapse-shards/prometheus" }),
    );
    const reaching = manifests.filter(({ kind, spec }) =>
      kind === "NetworkPolicy" ? JSON.stringify(spec.egress).includes("9090") : false,
    );
    expect(reaching.map(({ metadata }) => metadata.name)).toEqual(["cluster-a-controller"]);
    const own = await template({ history: { prometheus: { url, labels: { cluster: "x" } } } });
    expect(configIn(own)).toEqual({ prometheus: { url, labels: { cluster: "x" } } });
    for (const wrong of ["prometheus:9090", "http://user:secret@prometheus"])
      await expect(template({ history: { prometheus: { url: wrong } } })).rejects.toThrow("history/prometheus/url");
  });

  it("has the controller back tenants up where that is asked for, to a bucket or a volume", async () => {
    const recipient = `age1${"q".repeat(58)}`;
    const s3 = { bucket: "backups", prefix: "cluster-a/", endpoint: "https://s3.example", credentialsSecret: "s3" };
    const tenants = { a: { schedule: "0 * * * *", retention: { keepLast: 48, keepDays: 90 } }, b: { schedule: "" } };
    const backups = { enabled: true, target: s3, recipient, schedule: "30 2 * * *", tenants, scratchSize: "20Gi" };
    const bucket = await template({ backups });
    const parsed = controllerConfig(bucket).backups;
    expect(parsed).toMatchObject({
      target: {
        bucket: "backups",
        prefix: "cluster-a/",
        endpoint: "https://s3.example",
        region: "us-east-1",
        credentialsFile: "/run/synapse-shards/backups",
      },
      recipient,
      schedule: "30 2 * * *",
      retention: { keepLast: 7, keepDays: 30, keepOfTenantAdmins: 3 },
      tenants: { a: { schedule: "0 * * * *", retention: { keepLast: 48, keepDays: 90 } }, b: { schedule: null } },
      scratch: { directory: "/scratch", bytes: 20 * 1024 ** 3 },
    });
    const podOf = (manifests: Manifest[]) => find(manifests, "Deployment", "cluster-a-controller").spec.template.spec;
    expect(podOf(bucket).volumes).toEqual(
      expect.arrayContaining([
        { name: "scratch", emptyDir: { sizeLimit: "20Gi" } },
        expect.objectContaining({ name: "backups", secret: expect.objectContaining({ secretName: "s3" }) as object }),
      ]),
    );
    const volume = await template({ backups: { enabled: true, recipient, target: { claimName: "backups" } } });
    expect(controllerConfig(volume).backups?.target).toEqual({ directory: "/var/backups" });
    expect(podOf(volume).volumes).toContainEqual({ name: "backups", persistentVolumeClaim: { claimName: "backups" } });
    expect(podOf(volume).containers[0].volumeMounts).toContainEqual({ name: "backups", mountPath: "/var/backups" });
    expect(JSON.stringify(podOf(await template()))).not.toMatch(/backups|scratch/);
  });

  it("refuses backups that could not be made", async () => {
    const recipient = `age1${"q".repeat(58)}`;
    const wrong = (backups: object) => template({ backups: { enabled: true, ...backups } });
    await expect(wrong({ recipient })).rejects.toThrow("backups.target.bucket or backups.target.claimName");
    const both = { bucket: "backups", claimName: "backups", credentialsSecret: "s3" };
    await expect(wrong({ recipient, target: both })).rejects.toThrow("one of them");
    await expect(wrong({ recipient, target: { bucket: "backups" } })).rejects.toThrow("credentialsSecret is empty");
    await expect(wrong({ target: { claimName: "backups" } })).rejects.toThrow("backups.recipient is empty");
    await expect(wrong({ recipient: "age-secret" })).rejects.toThrow("backups/recipient");
    await expect(wrong({ scratchSize: "500Mi" })).rejects.toThrow("backups/scratchSize");
  });

  it("shows the console where that is asked for, at a port that has nothing else, and to whom the values say", async () => {
    const { spec: closed } = find(await template(), "NetworkPolicy", "cluster-a-controller");
    expect(JSON.stringify(closed)).not.toContain("8011");
    const role = { group: "admins", role: "admin" };
    const console = {
      enabled: true,
      url: "https://console.example",
      trustedProxies: ["10.0.0.0/8"],
      ingress: { enabled: true, className: "nginx", tlsSecret: "console-tls" },
      signIn: {
        oidc: { issuer: "https://id.example", clientId: "shards", roles: [role] },
        oidcSecret: { name: "console-oidc" },
        kubernetes: { roles: [role] },
      },
    };
    const consoleFrom = [{ namespaceSelector: { matchLabels: { name: "ingress" } } }];
    const manifests = await template({ console, networkPolicies: { consoleFrom } });
    const read: unknown = parse(find(manifests, "ConfigMap", "cluster-a-controller").data!["controller.yaml"]!);
    expect(KubernetesControllerConfigSchema.parse(read)).toMatchObject({
      console: { port: 8011, trustedProxies: ["10.0.0.0/8"] },
      signIn: {
        consoleUrl: "https://console.example",
        oidc: { issuer: "https://id.example", clientSecretFile: "/run/synapse-shards/oidc/client-secret" },
        kubernetes: { roles: [role] },
      },
    });
    const { spec: ingress } = find(manifests, "Ingress", "cluster-a-console");
    expect(ingress).toMatchObject({
      tls: [{ hosts: ["console.example"], secretName: "console-tls" }],
      rules: [{ host: "console.example", http: { paths: [{ backend: { service: { port: { name: "console" } } } }] } }],
    });
    const { spec: policy } = find(manifests, "NetworkPolicy", "cluster-a-controller");
    expect(policy.ingress).toContainEqual({ ports: [{ port: 8011, protocol: "TCP" }], from: consoleFrom });
    const { rules } = find(manifests, "ClusterRole", "shards-cluster-a-token-reviews");
    expect(rules).toEqual([{ apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"] }]);
    const { spec: pods } = find(manifests, "Deployment", "cluster-a-controller");
    expect(pods.template.spec.volumes).toContainEqual(
      expect.objectContaining({ name: "oidc", secret: expect.objectContaining({ secretName: "console-oidc" }) }),
    );
  });

  it("refuses a console that could not work, or that would let in too many", async () => {
    const enabled = { enabled: true, url: "https://console.example" };
    const oidc = { issuer: "https://id.example", clientId: "shards" };
    for (const [values, words] of [
      [{ enabled: true }, "console.url is empty"],
      [{ enabled: true, url: "http://console.example" }, "console/url"],
      [{ enabled: true, url: "https://console.example/path" }, "console/url"],
      [{ ...enabled, signIn: { oidc } }, "roles"],
      [{ ...enabled, signIn: { oidc: { ...oidc, clientSecret: "in the values" } } }, "clientSecret"],
      [{ ...enabled, signIn: { kubernetes: { roles: [{ role: "admin" }] } } }, "kubernetes/roles"],
      [{ ...enabled, signIn: { kubernetes: { roles: [{ group: "a", role: "root" }] } } }, "kubernetes/roles"],
    ] as const)
      await expect(template({ console: values })).rejects.toThrow(words);
  });

  it("has an entrance for tenants' administrators where that is asked for, with a Service, an Ingress and a wall of its own", async () => {
    const without = JSON.stringify(await template());
    for (const word of ["8449", "gateway-admin", "adminAccess"]) expect(without).not.toContain(word);
    const adminAccess = {
      enabled: true,
      publicPort: 8443,
      allowedNetworks: ["10.20.0.0/16"],
      tenantAdmins: true,
      ui: "https://Admin.example:443/ketesa/",
      origins: ["http://localhost:5173"],
      ingress: { enabled: true, hosts: ["*.matrix.example"], className: "inside", tlsSecret: "tls" },
    };
    const from = [{ namespaceSelector: { matchLabels: { name: "ingress" } } }];
    const trustedProxies = ["192.0.2.10/32"];
    const manifests = await template({
      gateway: { adminAccess, trustedProxies },
      networkPolicies: { adminAccessFrom: from },
    });
    const gateway = parseGatewayConfig(
      JSON.parse(find(manifests, "ConfigMap", "cluster-a-gateway").data!["gateway.json"]!),
      "chart",
    );
    expect(gateway).toMatchObject({
      adminApi: false,
      trustedProxies,
      adminAccess: { host: "0.0.0.0", port: 8449, tls: false, allowedNetworks: ["10.20.0.0/16"] },
    });
    const browser = { origin: "https://admin.example" };
    const guard = new AdminAccess(gateway.adminAccess!);
    const asked = { method: "GET", url: "/_synapse/admin/v2/users", headers: browser } as unknown as IncomingMessage;
    const route = { adminAccess: { allowedNetworks: [] } } as unknown as Route;
    expect(guard.refusal(asked, route, "10.20.0.1")).toBeUndefined();
    expect(guard.refusal(asked, route, "10.21.0.1")).toBeDefined();
    const { adminAccess: controller } = KubernetesControllerConfigSchema.parse(
      parse(find(manifests, "ConfigMap", "cluster-a-controller").data!["controller.yaml"]!),
    );
    expect(controller).toMatchObject({ tls: false, tenantAdmins: true, allowedNetworks: ["10.20.0.0/16"] });
    const view = adminAccessView(
      { allowedNetworks: [] },
      { ...controller!, listensAt: 8449 },
      "https://a.matrix.example",
    );
    expect(view.address).toBe("https://a.matrix.example:8443");
    const { spec: service } = find(manifests, "Service", "cluster-a-gateway-admin");
    expect(service).toMatchObject({ type: "ClusterIP", ports: [{ name: "http", port: 8449, targetPort: "admin" }] });
    const { spec: pods } = find(manifests, "Deployment", "cluster-a-gateway");
    expect(service.selector).toEqual(pods.selector.matchLabels);
    expect(pods.template.spec.containers[0].ports).toContainEqual(
      expect.objectContaining({ name: "admin", containerPort: 8449 }),
    );
    expect(
      find(manifests, "Service", "cluster-a-gateway").spec.ports.map(({ port }: { port: number }) => port),
    ).toEqual([8008, 9090]);
    const { spec: ingress } = find(manifests, "Ingress", "cluster-a-gateway-admin");
    const backend = { service: { name: "cluster-a-gateway-admin", port: { name: "http" } } };
    expect(ingress).toMatchObject({
      ingressClassName: "inside",
      tls: [{ hosts: ["*.matrix.example"], secretName: "tls" }],
      rules: [{ host: "*.matrix.example", http: { paths: [{ path: "/_synapse/admin", backend }] } }],
    });
    const { spec: policy } = find(manifests, "NetworkPolicy", "cluster-a-gateway");
    expect(policy.ingress).toContainEqual({ ports: [{ port: 8449, protocol: "TCP" }], from });
    // Where the chart makes no walls, who comes is somebody else's to bound.
    const open = await template({ gateway: { adminAccess, trustedProxies }, networkPolicies: { enabled: false } });
    expect(open.some(({ kind }) => kind === "NetworkPolicy")).toBe(false);
  });

  it.each([
    [{ gateway: { adminAccess: { enabled: true } } }, "gateway.trustedProxies is empty"],
    [
      { gateway: { trustedProxies: ["192.0.2.10/32"], adminAccess: { enabled: true } } },
      "networkPolicies.adminAccessFrom is empty",
    ],
    [{ gateway: { adminAccess: { ingress: { enabled: true, hosts: ["a"] } } } }, "there is nothing to lead to"],
    [
      {
        gateway: { trustedProxies: ["192.0.2.10/32"], adminAccess: { enabled: true, ingress: { enabled: true } } },
        networkPolicies: { adminAccessFrom: [{ podSelector: {} }] },
      },
      "gateway.adminAccess.ingress.hosts is empty",
    ],
    [{ gateway: { adminAccess: { allowedNetworks: ["clinic"] } } }, "/gateway/adminAccess/allowedNetworks/0"],
    [{ gateway: { adminAccess: { origins: ["https://admin.example/"] } } }, "/gateway/adminAccess/origins/0"],
    [{ gateway: { adminAccess: { ui: "admin.example" } } }, "/gateway/adminAccess/ui"],
    [{ gateway: { adminAccess: { port: 8449 } } }, "port"],
  ])(
    "refuses an entrance for administrators that could not work, or that would let in too many: %j",
    async (values, words) => {
      await expect(template(values)).rejects.toThrow(words);
    },
  );

  it("gives controller and shards the certificate authorities that are named", async () => {
    const manifests = await template({ trustedCAs: { configMap: "our-ca" } });
    const { containers, volumes } = find(manifests, "Deployment", "cluster-a-controller").spec.template.spec;
    expect(containers[0].env).toContainEqual({ name: "NODE_EXTRA_CA_CERTS", value: "/run/synapse-shards/ca/ca.crt" });
    expect(volumes).toContainEqual({ name: "ca", configMap: { name: "our-ca" } });
    expect(find(manifests, "ConfigMap", "cluster-a-controller").data!["controller.yaml"]).toMatch(/configMap: our-ca/);
  });

  it("renders the same manifests each time, and no Secret", async () => {
    const manifests = await template();
    expect(await template()).toEqual(manifests);
    expect(manifests.map(({ kind }) => kind)).not.toContain("Secret");
    const own = await template({ tokens: { existingSecret: "mine" } });
    const config = find(own, "ConfigMap", "cluster-a-controller").data!["controller.yaml"];
    expect(config).toMatch(/tokens: {secret: mine, make: false}/);
    const { volumes } = find(own, "Deployment", "cluster-a-gateway").spec.template.spec;
    expect(volumes).toContainEqual(
      expect.objectContaining({ name: "tokens", secret: expect.objectContaining({ secretName: "mine" }) }),
    );
  });

  it.each([
    [{ maxTenantsPerShard: "many" }, "/maxTenantsPerShard"],
    [{ maxTenantPerShard: 3 }, "maxTenantPerShard"],
    [{ fleet: { imageTag: "latest" } }, "/fleet/imageTag"],
    [
      { fleet: { rollout: { windows: [{ schedule: "nightly", durationMinutes: 5 }] } } },
      "/fleet/rollout/windows/0/schedule",
    ],
    [{ shard: { mediaCache: { maxMiB: "2Gi" } } }, "/shard/mediaCache/maxMiB"],
    [{ gateway: { trustedProxies: ["ingress"] } }, "/gateway/trustedProxies/0"],
    [{ gateway: { ingress: { enabled: true } } }, "gateway.ingress.hosts is empty"],
  ])("refuses a wrong value: %j", async (values, words) => {
    await expect(helm("template", values)).rejects.toThrow(words);
  });

  it("has a README that says what the values say", async () => {
    await expect(run(process.execPath, [resolve(CHART, "../generate-readme.mjs"), "--check"])).resolves.toBe("");
  });
});
