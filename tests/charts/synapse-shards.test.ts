import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { KubernetesControllerConfigSchema } from "../../src/platforms/kubernetes/controller-config.ts";
import { parseGatewayConfig } from "../../src/gateway/config.ts";
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

describe.skipIf(withoutHelm)("chart synapse-shards (needs helm)", () => {
  it("prevents a chart that helm lint refuses", async () => {
    expect(await helm("lint", {}, "--strict")).toContain("0 chart(s) failed");
  });

  it("prevents a package that lacks a file, or has what is nobody's business: it gives what the checkout gives, CRDs included", async () => {
    const directory = await mkdtemp(join(tmpdir(), "chart-"));
    try {
      await run("helm", ["package", CHART, "--destination", directory]);
      const [name = ""] = await readdir(directory);
      expect(name).toMatch(/^synapse-shards-\d+\.\d+\.\d+\.tgz$/);
      const rendered = (chart: string) =>
        run("helm", ["template", "cluster-a", chart, "-n", "shards", "--include-crds"]);
      const settled = (manifests: string) => manifests.replaceAll(/^.*(?:-token|checksum\/config):.*$/gm, "");
      expect(settled(await rendered(join(directory, name)))).toBe(settled(await rendered(CHART)));
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("prevents containers with more rights than they need", async () => {
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
    }
  });

  it("prevents a token of Kubernetes where none is needed, and rights over more than the namespace", async () => {
    const manifests = await template();
    expect(find(manifests, "Deployment", "cluster-a-gateway").spec.template.spec.automountServiceAccountToken).toBe(
      false,
    );
    expect(manifests.map(({ kind }) => kind)).not.toContain("ClusterRole");
    const { rules = [] } = find(manifests, "Role", "cluster-a-controller");
    for (const { apiGroups, resources, verbs } of rules)
      expect([...apiGroups, ...resources, ...verbs]).not.toContain("*");
  });

  it("prevents configurations that controller and gateway refuse, whatever the values", async () => {
    const { parse } = await import("yaml");
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
      { imagePullSecrets: [{ name: "mine" }], labels: { team: "matrix" }, gateway: { trustedProxies: ["10.0.0.0/8"] } },
    ]) {
      const manifests = await template(values);
      const controller: unknown = parse(find(manifests, "ConfigMap", "cluster-a-controller").data!["controller.yaml"]!);
      expect(KubernetesControllerConfigSchema.safeParse(controller).error?.issues).toBeUndefined();
      const gateway: unknown = JSON.parse(find(manifests, "ConfigMap", "cluster-a-gateway").data!["gateway.json"]!);
      expect(parseGatewayConfig(gateway, "chart")).toMatchObject({ http: { port: 8008 } });
    }
  });

  it("prevents values that are passed over: each of these is where it belongs", async () => {
    const manifests = await template({
      maxTenantsPerShard: 7,
      imagePullSecrets: [{ name: "mine" }],
      shard: {
        image: { registry: "registry.example" },
        extraEnv: [{ name: "A", value: "b" }],
        mediaCache: { maxMiB: 99 },
      },
      gateway: { replicas: 3, extraEnv: [{ name: "C", value: "d" }], annotations: { e: "f" } },
      fleet: { imageTag: "1.150.0" },
    });
    const config = find(manifests, "ConfigMap", "cluster-a-controller").data!["controller.yaml"]!;
    expect(config).toMatch(/maxTenantsPerShard: 7/);
    expect(config).toMatch(/maxMiB: 99/);
    expect(config).toMatch(/registry: registry\.example/);
    expect(config).toMatch(/pullSecrets:\s+- name: mine/);
    const { spec } = find(manifests, "Deployment", "cluster-a-gateway");
    expect(spec.replicas).toBe(3);
    expect(spec.template.metadata.annotations).toMatchObject({ e: "f" });
    expect(spec.template.spec.containers[0].env).toContainEqual({ name: "C", value: "d" });
    expect(spec.template.spec.imagePullSecrets).toEqual([{ name: "mine" }]);
    expect(find(manifests, "SynapseFleet", "cluster-a").spec.imageTag).toBe("1.150.0");
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
  ])("prevents a wrong value from being taken for another: %j", async (values, words) => {
    await expect(helm("template", values)).rejects.toThrow(words);
  });

  it("prevents a README that says something else than the values", async () => {
    await expect(run(process.execPath, [resolve(CHART, "../generate-readme.mjs"), "--check"])).resolves.toBe("");
  });
});
