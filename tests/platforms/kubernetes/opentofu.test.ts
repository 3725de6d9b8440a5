import { existsSync } from "node:fs";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { withoutCluster } from "../../kubernetes/support/cluster.ts";
import { applyCrds } from "../../kubernetes/support/crds.ts";
import { kubectl } from "../../kubernetes/support/run.ts";
import { goModule } from "../../support/go-module.ts";
import { until } from "../../support/patience.ts";

const ROOT = resolve(import.meta.dirname, "../../..");
/** OpenTofu or Terraform, and the directory of terraform-provider-kubernetes. */
const { TOFU = "", TOFU_PROVIDERS = "" } = process.env;
const without =
  withoutCluster || !existsSync(TOFU) || !existsSync(join(TOFU_PROVIDERS, "terraform-provider-kubernetes"));
const EXTERNAL_SECRETS = "github.com/external-secrets/external-secrets@v1.3.2";
const CHANGED = 2;

/** examples/gitops/opentofu/tenants by OpenTofu itself; whatever the cluster and its people write must stay, and not be seen as a change. */
describe.skipIf(without)(
  "tenants by OpenTofu (needs KUBECONFIG, Go, and TOFU and TOFU_PROVIDERS: see docs/gitops.md)",
  () => {
    const namespace = `tofu-${process.pid}`;
    let directory = "";
    const tofu = async (...args: string[]): Promise<{ code: number; said: string }> => {
      const env = {
        ...process.env,
        KUBE_CONFIG_PATH: process.env["KUBECONFIG"],
        TF_CLI_CONFIG_FILE: join(directory, "tofu.rc"),
        CHECKPOINT_DISABLE: "1",
      };
      const cwd = join(directory, "gitops/opentofu/tenants");
      try {
        const { stdout, stderr } = await promisify(execFile)(TOFU, [...args, "-no-color"], { cwd, env });
        return { code: 0, said: stdout + stderr };
      } catch (error) {
        const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
        return { code, said: stdout + stderr };
      }
    };
    const plan = () => tofu("plan", "-detailed-exitcode", "-input=false");
    const tenant = async (name: string) =>
      JSON.parse(await kubectl("-n", namespace, "get", "synapsetenant", name, "-o", "json")) as {
        metadata: { resourceVersion: string; labels: Record<string, string>; finalizers?: string[] };
        spec: Record<string, unknown>;
      };
    const patch = (name: string, change: object, ...more: string[]) =>
      kubectl("-n", namespace, "patch", "synapsetenant", name, "--type=merge", "-p", JSON.stringify(change), ...more);

    beforeAll(async () => {
      directory = await mkdtemp(join(tmpdir(), "opentofu-"));
      await cp(join(ROOT, "examples/gitops"), join(directory, "gitops"), { recursive: true });
      const tenants = join(directory, "gitops/tenants");
      for (const file of await readdir(tenants, { recursive: true })) {
        if (!/(tenant|secret)\.yaml$/.test(file)) continue;
        const text = await readFile(join(tenants, file), "utf8");
        await writeFile(join(tenants, file), text.replace("namespace: shards", `namespace: ${namespace}`));
      }
      const overrides = `dev_overrides { "hashicorp/kubernetes" = ${JSON.stringify(TOFU_PROVIDERS)} }`;
      await writeFile(join(directory, "tofu.rc"), `provider_installation {\n  ${overrides}\n  direct {}\n}\n`);
      const module = await goModule(EXTERNAL_SECRETS);
      if (module === undefined)
        throw new Error(`${EXTERNAL_SECRETS} cannot be had: Go and its module proxy are needed`);
      const crd = join(module, "config/crds/bases/external-secrets.io_externalsecrets.yaml");
      await kubectl("apply", "--server-side", "--force-conflicts", "-f", crd);
      await applyCrds();
      await kubectl("create", "namespace", namespace);
      await until("both kinds are served", async () => {
        const kinds = await kubectl("api-resources", "-o", "name");
        return kinds.includes("synapsetenants.") && kinds.includes("externalsecrets.");
      });
    });
    afterAll(async () => {
      for (const name of ["clinic-a", "clinic-b"]) await patch(name, { metadata: { finalizers: [] } }).catch(() => {});
      await kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found");
      await rm(directory, { recursive: true, force: true });
    });

    it("makes them, and the second time changes nothing", async () => {
      const first = await tofu("apply", "-auto-approve", "-input=false");
      expect(first.said).toContain("Resources: 3 added, 0 changed, 0 destroyed");
      const before = await tenant("clinic-a");
      expect(await plan()).toMatchObject({ code: 0 });
      expect((await tofu("apply", "-auto-approve", "-input=false")).said).toContain("0 added, 0 changed, 0 destroyed");
      expect(await tenant("clinic-a")).toEqual(before);
    });

    it("leaves alone what the controller, the console and owners write", async () => {
      const status = { phase: "Running", reason: "", message: "", epoch: 1, observedGeneration: 1 };
      await patch("clinic-a", { status }, "--subresource=status");
      await patch("clinic-a", { metadata: { finalizers: ["synapse-shards.io/stop"] } });
      await patch("clinic-a", { spec: { suspended: true, adminAccess: { allowedNetworks: ["198.51.100.0/24"] } } });
      expect(await plan()).toMatchObject({ code: 0 });
      expect((await tofu("apply", "-auto-approve", "-input=false")).said).toContain("0 added, 0 changed, 0 destroyed");
      const { metadata, spec } = await tenant("clinic-a");
      expect(metadata.finalizers).toEqual(["synapse-shards.io/stop"]);
      expect(spec).toMatchObject({ suspended: true, adminAccess: { allowedNetworks: ["198.51.100.0/24"] } });
    });

    it("takes a change in Git to the tenant that it is of, and what that has besides stays", async () => {
      const file = join(directory, "gitops/tenants/clinic-a/tenant.yaml");
      const text = await readFile(file, "utf8");
      await writeFile(file, text.replace("labels: { customer: acme }", "labels: { customer: umbrella }"));
      const other = await tenant("clinic-b");
      expect(await plan()).toMatchObject({ code: CHANGED });
      expect((await tofu("apply", "-auto-approve", "-input=false")).said).toContain("0 added, 1 changed, 0 destroyed");
      const { metadata, spec } = await tenant("clinic-a");
      expect([metadata.labels["customer"], spec["suspended"], metadata.finalizers]).toEqual([
        "umbrella",
        true,
        ["synapse-shards.io/stop"],
      ]);
      expect(await tenant("clinic-b")).toEqual(other);
      expect(await plan()).toMatchObject({ code: 0 });
    });

    it("deletes no homeserver", async () => {
      const refused = { code: 1, said: expect.stringContaining("prevent_destroy") as string };
      expect(await tofu("destroy", "-auto-approve", "-input=false")).toMatchObject(refused);
      // As little when its directory is gone by mistake.
      await rm(join(directory, "gitops/tenants/clinic-b"), { recursive: true });
      expect(await tofu("apply", "-auto-approve", "-input=false")).toMatchObject(refused);
      const left = await kubectl("-n", namespace, "get", "synapsetenants", "-o", "name");
      expect(left.trim().split("\n")).toHaveLength(2);
    });
  },
);
