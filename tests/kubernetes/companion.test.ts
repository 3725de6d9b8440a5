import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { COMPANION, ESS_VALUES, HOSTNAMES } from "../charts/support/ess-helm.ts";
import { merged, type Values } from "../charts/support/matrix-stack.ts";
import { withoutCluster } from "./support/cluster.ts";
import { Installation } from "./support/installation.ts";
import { helm, kubectl, run } from "./support/run.ts";

const MINUTES = 60_000;
const RELEASE = "ess-tenant";

/** A homeserver of the chart synapse-tenant, where ess-helm's components would look for it. They themselves are not there. */
describe.skipIf(withoutCluster)(
  "a tenant beside ess-helm (needs KUBECONFIG, and the images of tests/kubernetes/images)",
  () => {
    const cluster = new Installation("companion");
    const namespace = () => cluster.namespaceOf(RELEASE);
    const inNamespace = (...args: string[]) => kubectl("-n", namespace(), ...args);
    const bridge = { id: "hookshot", as_token: "as", hs_token: "hs", sender_localpart: "hookshot", url: null };

    async function install(values: Values, verb: "install" | "upgrade" = "install"): Promise<void> {
      const own = {
        ingress: { tlsEnabled: false },
        synapse: {
          asTenantHook: { clusterId: "synapse-shards", namespace: cluster.namespace },
          ...cluster.serversOf(RELEASE),
        },
        hookshot: { enabled: true, appserviceRegistration: { secret: "bridge", secretKey: "registration.yaml" } },
      };
      const chart = [RELEASE, COMPANION, "-n", namespace(), "-f", "-", "--timeout", "4m"];
      await run("helm", [verb, ...chart], JSON.stringify(merged(HOSTNAMES, ESS_VALUES, own, values)));
    }

    beforeAll(async () => {
      await cluster.install({ fleet: { imageTag: "1.163.2" }, maxShardsPerSynapseImageTag: 1 });
      await cluster.prepareTenant(RELEASE);
      const registration = stringify({ ...bridge, namespaces: {} });
      await inNamespace("create", "secret", "generic", "bridge", `--from-literal=registration.yaml=${registration}`);
      await inNamespace("label", "secret", "bridge", `synapse-shards.io/tenant=${RELEASE}`);
      await install({});
    }, 10 * MINUTES);
    afterAll(() => cluster.close(), 5 * MINUTES);

    it(
      "answers at the Service that ess-helm's components call, and knows the secret of Matrix Authentication Service",
      async () => {
        await cluster.running(RELEASE);
        expect(await helm("test", RELEASE, "-n", namespace(), "--timeout", "4m")).toContain("Succeeded");
      },
      8 * MINUTES,
    );

    it("has the bridge whose registration is in a Secret", async () => {
      const answer = await fetchAs(cluster, "/_matrix/client/v3/account/whoami", "as");
      expect(await answer.json()).toMatchObject({ user_id: "@hookshot:example.org" });
    });

    it(
      "refuses a Service of another namespace, and serves on",
      async () => {
        const elsewhere = { synapse: { hosts: [`chat.${cluster.namespace}.svc`] } };
        await expect(install(elsewhere, "upgrade")).rejects.toThrow("a Service in spec.hosts is one of");
        const foreign = { synapse: { hosts: ["chat.elsewhere.example"] } };
        await install(foreign, "upgrade");
        await kubectl(
          "-n",
          cluster.namespace,
          "wait",
          `synapsetenant/${RELEASE}`,
          "--for=jsonpath={.status.reason}=OptionNotAllowed",
          "--timeout=120s",
        );
        const { phase, message } = await cluster.status(RELEASE);
        expect(phase).toBe("Running");
        expect(message).toContain("synapse_shards.hosts may not lead to chat.elsewhere.example");
        expect((await fetchAs(cluster, "/_matrix/client/versions", "as")).status).toBe(200);
      },
      8 * MINUTES,
    );
  },
);

/** As a bridge within the cluster does: at the gateway, by the Service's name. */
async function fetchAs(cluster: Installation, path: string, token: string): Promise<Response> {
  const ip = await kubectl(
    "-n",
    cluster.namespace,
    "get",
    "service",
    "synapse-shards-gateway",
    "-o",
    "jsonpath={.spec.clusterIP}",
  );
  const host = `ess-synapse.${cluster.namespaceOf(RELEASE)}.svc.cluster.local`;
  const { request } = await import("undici");
  const headers = { host: `${host}:8008`, authorization: `Bearer ${token}` };
  const { statusCode, body } = await request(`http://${ip}:8008${path}`, { headers });
  return new Response(await body.text(), { status: statusCode });
}
