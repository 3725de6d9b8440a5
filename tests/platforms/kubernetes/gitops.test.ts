import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse, parseAllDocuments, stringify } from "yaml";
import { withoutCluster } from "../../kubernetes/support/cluster.ts";
import { run } from "../../kubernetes/support/run.ts";
import { goModule } from "../../support/go-module.ts";
import { until } from "../../support/patience.ts";

const ROOT = resolve(import.meta.dirname, "../../..");
const EXAMPLE = join(ROOT, "examples/gitops");
/** Where each project keeps its CRDs. */
const CRDS = [
  [
    "github.com/argoproj/argo-cd/v3@v3.3.0",
    "manifests/crds/application-crd.yaml",
    "manifests/crds/applicationset-crd.yaml",
  ],
  ["github.com/fluxcd/helm-controller@v1.4.0", "config/crd/bases/helm.toolkit.fluxcd.io_helmreleases.yaml"],
  ["github.com/fluxcd/kustomize-controller@v1.7.3", "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml"],
  ["github.com/fluxcd/source-controller@v1.8.0", "config/crd/bases/source.toolkit.fluxcd.io_ocirepositories.yaml"],
  ["github.com/external-secrets/external-secrets@v1.3.2", "config/crds/bases/external-secrets.io_externalsecrets.yaml"],
  ["github.com/bitnami-labs/sealed-secrets@v0.40.0", "helm/sealed-secrets/crds/bitnami.com_sealedsecrets.yaml"],
] as const;
const VALUES = join(EXAMPLE, "flux/fleet/values.yaml");

interface Applied {
  kind: string;
  metadata: { name: string; namespace?: string; resourceVersion?: string; annotations?: Record<string, string> };
  status?: object;
}

/** The generation counts changes of the spec. A default of `status`, as Flux's kinds have, is stored at the next write, and no change of what was applied. */
function withoutServers(item: Applied): object {
  const { resourceVersion, annotations, ...metadata } = item.metadata;
  expect(resourceVersion).toBeDefined();
  // The cluster's own controllers note down there which rollout it is.
  const { "deployment.kubernetes.io/revision": _, ...applied } = annotations ?? {};
  return { ...item, metadata: { ...metadata, annotations: applied }, status: undefined };
}

/** What is in Git, in a real API server. The tools that would bring it there do not run. CRDs stay. */
describe.skipIf(withoutCluster)("a fleet in Git (needs KUBECONFIG, helm and Go)", () => {
  const namespace = `gitops-${process.pid}`;
  const kubectl = (args: string[], input?: string) => run("kubectl", args, input);
  const built = (directory: string) => kubectl(["kustomize", join(EXAMPLE, directory)]);
  const chart = () =>
    run("helm", [
      "template",
      "synapse-shards",
      join(ROOT, "charts/synapse-shards"),
      "-n",
      "shards",
      "-f",
      VALUES,
      "--no-hooks",
    ]);
  /** All of it in a namespace of the test's. */
  const here = (text: string) =>
    parseAllDocuments(text)
      .map((document) => document.toJS() as Applied | null)
      .filter((manifest) => manifest !== null)
      .map((manifest) =>
        stringify(
          manifest.metadata.namespace === undefined && /^(Cluster|Validating)/.test(manifest.kind)
            ? { ...manifest, metadata: { ...manifest.metadata, name: `${manifest.metadata.name}-${namespace}` } }
            : { ...manifest, metadata: { ...manifest.metadata, namespace } },
        ),
      )
      .join("---\n");
  const apply = async (text: string): Promise<Map<string, object>> => {
    const json = await kubectl(
      ["apply", "--server-side", "--validate=strict", "--field-manager=git", "-o", "json", "-f", "-"],
      text,
    );
    const answer = JSON.parse(json) as Applied | { items: Applied[] };
    const items = "items" in answer ? answer.items : [answer];
    return new Map(items.map((item) => [`${item.kind}/${item.metadata.name}`, withoutServers(item)]));
  };

  beforeAll(async () => {
    for (const [module, ...files] of CRDS) {
      const directory = await goModule(module);
      if (directory === undefined) throw new Error(`${module} cannot be had: Go and its module proxy are needed`);
      for (const file of files)
        await kubectl(["apply", "--server-side", "--force-conflicts", "-f", join(directory, file)]);
    }
    await kubectl(["apply", "--server-side", "--force-conflicts", "-f", join(ROOT, "charts/synapse-shards/crds")]);
    await kubectl(["create", "namespace", namespace]);
    await until("all kinds are served", async () => {
      const kinds = await kubectl(["api-resources", "-o", "name"]);
      return ["synapsetenants.", "applicationsets.", "helmreleases.", "externalsecrets.", "sealedsecrets."].every(
        (kind) => kinds.includes(kind),
      );
    });
  });
  afterAll(async () => {
    await kubectl(["delete", "namespace", namespace, "--wait=false", "--ignore-not-found"]);
    const mine = (
      await kubectl([
        "get",
        "clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding",
        "-o",
        "name",
      ])
    )
      .split("\n")
      .filter((name) => name.endsWith(`-${namespace}`));
    if (mine.length > 0) await kubectl(["delete", ...mine]);
  });

  it.each([
    ["the chart with the fleet's values", chart],
    ["its tenants and their secrets", () => built("tenants")],
    ["what Flux reads of the fleet", () => built("flux/fleet")],
    ["what Flux reads first", async () => readFileSync(join(EXAMPLE, "flux/tenants.yaml"), "utf8")],
    ["Argo CD's Application", async () => readFileSync(join(EXAMPLE, "argocd/fleet.yaml"), "utf8")],
    ["Argo CD's ApplicationSet", async () => readFileSync(join(EXAMPLE, "argocd/tenants.yaml"), "utf8")],
  ])("%s: rendered twice and applied twice, nothing changes", async (_what, render) => {
    const [first, second] = [await render(), await render()];
    expect(second).toBe(first);
    const applied = await apply(here(first));
    expect(applied.size).toBeGreaterThan(0);
    expect(await apply(here(second))).toEqual(applied);
  });

  it("has each tenant's Secret labelled for it, and named by it", async () => {
    const documents = parseAllDocuments(await built("tenants")).map((document) => document.toJS());
    const tenants = documents.filter(({ kind }) => kind === "SynapseTenant");
    expect(tenants).toHaveLength(2);
    for (const { metadata, spec } of tenants) {
      const secret = documents.find((one) => one.kind !== "SynapseTenant" && one.metadata.name === spec.secretName);
      const template = secret.spec.target?.template ?? secret.spec.template;
      expect(template.metadata.labels).toEqual({ "synapse-shards.io/tenant": metadata.name });
      // Media in no bucket would be refused.
      expect(parse(spec.config).media_storage_providers).toHaveLength(1);
    }
  });

  it("is one description for all: paths lead to what is there", async () => {
    const [application] = parse(readFileSync(join(EXAMPLE, "argocd/fleet.yaml"), "utf8")).spec.sources;
    for (const path of application.helm.valueFiles) readFileSync(join(ROOT, (path as string).replace("$values/", "")));
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string };
    for (const file of ["argocd/fleet.yaml", "flux/fleet/release.yaml", "opentofu/fleet/main.tf"])
      expect([file, readFileSync(join(EXAMPLE, file), "utf8").includes(version)]).toEqual([file, true]);
  });
});
