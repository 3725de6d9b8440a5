import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, openSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { makeArtefacts } from "../../../bin/artefacts.ts";
import { withoutCluster } from "../../kubernetes/support/cluster.ts";
import { kubectl, run } from "../../kubernetes/support/run.ts";
import { goModule } from "../../support/go-module.ts";
import { until } from "../../support/patience.ts";

const ROOT = resolve(import.meta.dirname, "../../..");
const MINUTES = 60_000;
/** Flux's helm-controller. */
const { HELM_CONTROLLER = "" } = process.env;
const without = withoutCluster || !existsSync(HELM_CONTROLLER);
const CRDS = ["github.com/fluxcd/helm-controller@v1.4.0", "github.com/fluxcd/source-controller@v1.8.0"];
const GATEWAYS = "deployment/synapse-shards-gateway";

interface HelmRelease {
  status: {
    history?: { version: number }[];
    conditions?: { type: string; status: string; message: string }[];
    lastHandledReconcileAt?: string;
  };
}

/**
 * examples/gitops/flux/fleet by Flux's own helm-controller, as a process beside the cluster. That source-controller brings it the chart is not
 * this project's to test: here, the test says that it is there.
 */
describe.skipIf(without)(
  "a fleet by Flux (needs KUBECONFIG with the images, helm, Go, and HELM_CONTROLLER: see docs/gitops.md)",
  () => {
    const flux = `flux-${process.pid}`;
    const shards = `${flux}-shards`;
    let directory = "";
    let controller: ChildProcess | undefined;
    let server: Server | undefined;
    const release = async () =>
      JSON.parse(await kubectl("-n", flux, "get", "helmrelease", "synapse-shards", "-o", "json")) as HelmRelease;
    const revisions = async () =>
      (JSON.parse(await run("helm", ["history", "synapse-shards", "-n", shards, "-o", "json"])) as object[]).length;
    /** What the release's objects are, apart from what their own controllers note. */
    const objects = async () => {
      const kinds = "deployment,configmap,service,networkpolicy,role,rolebinding,poddisruptionbudget,synapsefleet";
      const ours = ["-l", "app.kubernetes.io/managed-by=Helm", "-o", "json"];
      const { items } = JSON.parse(await kubectl("-n", shards, "get", kinds, ...ours)) as {
        items: { kind: string; metadata: { name: string; generation?: number; resourceVersion: string } }[];
      };
      return items.map(({ kind, metadata }) => [kind, metadata.name, metadata.generation ?? metadata.resourceVersion]);
    };
    /** As `flux reconcile helmrelease` asks. */
    const reconcile = async () => {
      const at = new Date().toISOString();
      const asked = [`reconcile.fluxcd.io/requestedAt=${at}`, "--overwrite"];
      await kubectl("-n", flux, "annotate", "helmrelease", "synapse-shards", ...asked);
      await until("it was reconciled", async () => (await release()).status.lastHandledReconcileAt === at);
      await until("it is ready", isReady);
    };
    const isReady = async () => {
      const { conditions = [] } = (await release()).status;
      const ready = conditions.find(({ type }) => type === "Ready");
      if (ready?.status !== "True") throw new Error(JSON.stringify(conditions));
      return true;
    };
    const events = () => kubectl("-n", flux, "get", "events", "-o", "jsonpath={.items[*].reason}");
    const gateways = async () =>
      Number(await kubectl("-n", shards, "get", GATEWAYS, "-o", "jsonpath={.spec.replicas}"));
    const change = (patch: object) =>
      kubectl("-n", flux, "patch", "helmrelease", "synapse-shards", "--type=merge", "-p", JSON.stringify(patch));

    /** What source-controller does and says: the chart's archive, and the digest of what was in the registry. */
    const bringChart = async (artefacts: string) => {
      const { version } = parse(await readFile(join(ROOT, "charts/synapse-shards/Chart.yaml"), "utf8"));
      const archive = await readFile(join(artefacts, `charts/synapse-shards-${version}.tgz`));
      const index = JSON.parse(await readFile(join(artefacts, "oci/synapse-shards/index.json"), "utf8"));
      server = createServer((_request, response) => response.end(archive));
      await new Promise<void>((done) => server?.listen(0, "127.0.0.1", done));
      const { port } = server.address() as AddressInfo;
      const lastUpdateTime = new Date().toISOString();
      const artifact = {
        path: "synapse-shards.tgz",
        url: `http://127.0.0.1:${port}/synapse-shards.tgz`,
        revision: `${version}@${index.manifests[0].digest}`,
        digest: `sha256:${createHash("sha256").update(archive).digest("hex")}`,
        size: archive.length,
        lastUpdateTime,
      };
      const ready = {
        type: "Ready",
        status: "True",
        reason: "Succeeded",
        message: "",
        lastTransitionTime: lastUpdateTime,
      };
      const status = { artifact, observedGeneration: 1, conditions: [{ ...ready, observedGeneration: 1 }] };
      const patch = ["--subresource=status", "--type=merge", "-p", JSON.stringify({ status })];
      await kubectl("-n", flux, "patch", "ocirepository", "synapse-shards", ...patch);
    };

    beforeAll(async () => {
      directory = await mkdtemp(join(tmpdir(), "flux-"));
      const artefacts = join(directory, "artefacts");
      await makeArtefacts({ directory: artefacts, images: false, platform: undefined, releases: [] });
      for (const module of CRDS) {
        const sources = await goModule(module);
        if (sources === undefined) throw new Error(`${module} cannot be had: Go and its module proxy are needed`);
        await kubectl("apply", "--server-side", "--force-conflicts", "-f", join(sources, "config/crd/bases"));
      }
      await kubectl("create", "namespace", flux);
      const fleet = await kubectl("kustomize", join(ROOT, "examples/gitops/flux/fleet"));
      const here = fleet
        .replaceAll("flux-system", flux)
        .replaceAll(/(targetNamespace|storageNamespace): shards/g, `$1: ${shards}`);
      await run("kubectl", ["apply", "--server-side", "-f", "-"], here);
      await bringChart(artefacts);
      const log = openSync(join(directory, "helm-controller.log"), "w");
      const alone = ["--metrics-addr=127.0.0.1:0", "--health-addr=127.0.0.1:0", "--watch-all-namespaces"];
      const env = { ...process.env, RUNTIME_NAMESPACE: flux };
      controller = spawn(HELM_CONTROLLER, alone, { env, stdio: ["ignore", log, log] });
      await until("it is installed", isReady, 300);
    }, 8 * MINUTES);
    afterAll(async () => {
      await kubectl("-n", flux, "delete", "helmrelease", "--all", "--timeout=90s").catch(() => {});
      controller?.kill();
      server?.close();
      await kubectl("delete", "namespace", flux, shards, "--wait=false", "--ignore-not-found");
      await rm(directory, { recursive: true, force: true });
    }, 5 * MINUTES);

    it("installs it once, and finds nothing to change while it runs", async () => {
      const before = await objects();
      expect(before.length).toBeGreaterThan(5);
      await reconcile();
      await reconcile();
      expect(await objects()).toEqual(before);
      expect(await revisions()).toBe(1);
      expect(await events()).not.toContain("Drift");
    });

    it("takes back what somebody changed by hand", async () => {
      await kubectl("-n", shards, "scale", GATEWAYS, "--replicas=3");
      await reconcile();
      await until("it is as in Git", async () => (await gateways()) === 2);
      expect(await events()).toContain("DriftDetected");
    });

    it("leaves the number of gateways to the autoscaler, as the page says", async () => {
      const ignore = [{ paths: ["/spec/replicas"], target: { kind: "Deployment", name: "synapse-shards-gateway" } }];
      // Never by processor time: nothing measures it here, and a test is the autoscaler.
      const autoscaling = { enabled: true, cpuPercent: 0, requestsInFlight: 1000 };
      await change({ spec: { driftDetection: { mode: "enabled", ignore }, values: { gateway: { autoscaling } } } });
      await until("it is switched on", async () => (await revisions()) === 2);
      await until("it is ready", isReady);
      expect(await gateways()).toBe(2);
      await kubectl("-n", shards, "scale", GATEWAYS, "--replicas=3");
      await reconcile();
      await change({ spec: { values: { gateway: { autoscaling, logLevel: "debug" } } } });
      await until("another change came", async () => (await revisions()) === 3);
      await until("it is ready", isReady);
      expect(await gateways()).toBe(3);
      await change({ spec: { values: { gateway: { autoscaling: { enabled: false }, logLevel: "debug" } } } });
      await until("it is switched off", async () => (await revisions()) === 4);
      await until("it is ready", isReady);
      expect(await gateways()).toBe(2);
    });
  },
);
