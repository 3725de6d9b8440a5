import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseAllDocuments, stringify } from "yaml";
import { ESS_VALUES, HOSTNAMES, TENANT, COMPANION } from "../../charts/support/ess-helm.ts";
import {
  CHART,
  helm,
  HOOK,
  KEYS,
  merged,
  MINIMAL,
  type Manifest,
  type Values,
} from "../../charts/support/matrix-stack.ts";
import { withoutCluster } from "../../kubernetes/support/cluster.ts";
import { run } from "../../kubernetes/support/run.ts";
import { goModule } from "../../support/go-module.ts";
import { until } from "../../support/patience.ts";
import { HAS_TRAEFIK, Traefik } from "../../support/traefik.ts";

const CRDS = "sigs.k8s.io/gateway-api@v1.5.0";
const SHARDS = resolve(import.meta.dirname, "../../../charts/synapse-shards");
/** Where this machine's servers are for Endpoints, which may not be on loopback. */
const CLUSTER = "gateways";
const OWN_HOST = "matrix.clinic-a.example";

/**
 * The charts' routes in a real API server with the Gateway API's own CRDs, and an implementation that is not ours. What they lead to are servers of
 * this machine that say who they are. Objects with cluster-wide effect (CRDs) stay.
 */
describe.skipIf(withoutCluster || !HAS_TRAEFIK)(
  "routes of the Gateway API (needs KUBECONFIG, helm, Go and Traefik)",
  () => {
    const id = `gwapi-${process.pid}`;
    const [shards, clinics] = [`${id}-shards`, `${id}-clinics`];
    const servers: Server[] = [];
    let traefik: Traefik | undefined;
    let address = "";

    const apply = (manifests: object[], ...args: string[]) =>
      run(
        "kubectl",
        ["apply", "--server-side", "--force-conflicts", "-f", "-", ...args],
        manifests.map((one) => stringify(one)).join("---\n"),
      );
    const rendered = async (chart: string, release: string, namespace: string, values: Values) =>
      parseAllDocuments(await helm(["template", release, chart, "-n", namespace], values))
        .map((document) => document.toJS() as Manifest | null)
        .filter((manifest) => manifest !== null)
        .map((manifest) => ({
          ...manifest,
          metadata: { ...manifest.metadata, namespace: manifest.metadata.namespace ?? namespace },
        }));
    const ofGatewayApi = (manifests: Manifest[]) =>
      manifests.filter((one) =>
        (one as unknown as { apiVersion: string }).apiVersion.startsWith("gateway.networking.k8s.io"),
      );
    const on = {
      gatewayApi: { enabled: true, parentRefs: [{ name: "public", namespace: shards, sectionName: "web" }] },
    };

    /** A Service without a selector, which leads to a server of this machine that answers with its own name. */
    async function backend(namespace: string, name: string, port: number): Promise<object[]> {
      const server = createServer((_request, response) => void response.end(`${namespace}/${name}`));
      servers.push(server);
      await new Promise<void>((done) => server.listen(0, address, done));
      const target = (server.address() as AddressInfo).port;
      return [
        {
          apiVersion: "v1",
          kind: "Service",
          metadata: { name, namespace },
          spec: { ports: [{ name: "http", port, targetPort: target }] },
        },
        {
          apiVersion: "discovery.k8s.io/v1",
          kind: "EndpointSlice",
          metadata: { name, namespace, labels: { "kubernetes.io/service-name": name } },
          addressType: "IPv4",
          ports: [{ name: "http", port: target, protocol: "TCP" }],
          endpoints: [{ addresses: [address], conditions: { ready: true } }],
        },
      ];
    }
    const ask = (host: string, path: string) =>
      new Promise<string>((done, fail) => {
        const asked = request({ host: "127.0.0.1", port: traefik!.port, path, headers: { host } }, (response) => {
          let text = "";
          response.on("data", (chunk: Buffer) => (text += chunk.toString()));
          response.on("end", () => done(response.statusCode === 200 ? text : String(response.statusCode)));
        });
        asked.on("error", fail).end();
      });

    beforeAll(async () => {
      const module = await goModule(CRDS);
      if (module === undefined) throw new Error(`${CRDS} cannot be had: Go and its module proxy are needed`);
      await run("kubectl", ["apply", "--server-side", "--force-conflicts", "-f", join(module, "config/crd/standard")]);
      address = (
        await run("kubectl", [
          "get",
          "nodes",
          "-o",
          "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}",
        ])
      ).trim();
      const namespaces = [shards, clinics].map((name) => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } }));
      await apply(namespaces);
      traefik = await Traefik.startForGateways();
      await apply([
        {
          apiVersion: "gateway.networking.k8s.io/v1",
          kind: "GatewayClass",
          metadata: { name: id },
          spec: { controllerName: "traefik.io/gateway-controller" },
        },
        {
          apiVersion: "gateway.networking.k8s.io/v1",
          kind: "Gateway",
          metadata: { name: "public", namespace: shards },
          spec: {
            gatewayClassName: id,
            listeners: [
              { name: "web", port: traefik.port, protocol: "HTTP", allowedRoutes: { namespaces: { from: "All" } } },
            ],
          },
        },
        ...(await backend(shards, `${CLUSTER}-gateway`, 8008)),
        ...(await backend(shards, `${CLUSTER}-controller`, 8011)),
        ...(await backend(clinics, "ess-matrix-authentication-service", 8080)),
      ]);
    });
    afterAll(async () => {
      await traefik?.close();
      for (const server of servers) server.close();
      await run("kubectl", ["delete", "namespace", shards, clinics, "--wait=false", "--ignore-not-found"]);
      await run("kubectl", ["delete", "gatewayclass", id, "--ignore-not-found"]);
    });

    it("lead a whole fleet's hosts to its gateway by one route, and the console's host to the controller", async () => {
      const fleet = {
        gateway: { ingress: { enabled: true, hosts: ["*.matrix.example"] } },
        console: { enabled: true, url: "https://console.example", ingress: { enabled: true } },
      };
      const routes = ofGatewayApi(await rendered(SHARDS, CLUSTER, shards, merged(fleet, on)));
      expect(routes.map(({ kind }) => kind)).toEqual(["HTTPRoute", "HTTPRoute"]);
      await apply(routes);
      await until(
        "the routes are there",
        async () => (await ask("clinic-a.matrix.example", "/_matrix/client/versions")) !== "404",
      );
      for (const host of ["clinic-a.matrix.example", "a.b.matrix.example"])
        expect(await ask(host, "/_matrix/client/versions")).toBe(`${shards}/${CLUSTER}-gateway`);
      await until(
        "the console's too",
        async () => (await ask("console.example", "/")) === `${shards}/${CLUSTER}-controller`,
      );
      expect(await ask("elsewhere.example", "/")).toBe("404");
    });

    it("lead a tenant's own host to the fleet's gateway, and its login to the Service of its own namespace", async () => {
      const hook = { synapse: { asTenantHook: { clusterId: CLUSTER, namespace: shards } } };
      const own = { synapse: { ingress: { host: OWN_HOST } } };
      const routes = ofGatewayApi(
        await rendered(COMPANION, "tenant", clinics, merged(HOSTNAMES, ESS_VALUES, TENANT, hook, own, on)),
      );
      expect(routes.map(({ kind }) => kind).toSorted()).toEqual(["HTTPRoute", "ReferenceGrant"]);
      await apply(routes);
      await until("its route is there", async () => (await ask(OWN_HOST, "/_matrix/client/versions")) !== "404");
      expect(await ask(OWN_HOST, "/_matrix/client/versions")).toBe(`${shards}/${CLUSTER}-gateway`);
      expect(await ask(OWN_HOST, "/_matrix/client/v3/login")).toBe(`${clinics}/ess-matrix-authentication-service`);
      expect(await ask(OWN_HOST, "/_synapse/admin/v1/users")).toBe("404");
    });

    it("has a listener with a host's own certificate that the API server takes as it is", async () => {
      const values = merged(
        MINIMAL,
        { synapse: KEYS },
        { synapse: { asTenantHook: { ...HOOK, namespace: shards, enabled: true } } },
        on,
        {
          gatewayApi: { listenerSet: { enabled: true } },
          ingress: { tlsSecret: "clinic-a-tls" },
        },
      );
      const routes = ofGatewayApi(await rendered(CHART, "clinic-a", clinics, values));
      expect(routes.map(({ kind }) => kind).toSorted()).toEqual([
        "HTTPRoute",
        "HTTPRoute",
        "ListenerSet",
        "ListenerSet",
      ]);
      await expect(apply(routes, "--dry-run=server", "--validate=strict")).resolves.toContain("listenerset");
    });
  },
);
