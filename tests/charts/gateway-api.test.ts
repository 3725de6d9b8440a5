import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { companion, ESS_VALUES, HOSTNAMES, TENANT } from "./support/ess-helm.ts";
import {
  CHART,
  find,
  helm,
  HOOK,
  KEYS,
  merged,
  MINIMAL,
  withoutHelm,
  type Manifest,
  type Values,
} from "./support/matrix-stack.ts";

const SHARDS = resolve(import.meta.dirname, "../../charts/synapse-shards");
const PARENTS = [{ name: "public", namespace: "infra", sectionName: "https" }];
const ON = { gatewayApi: { enabled: true, parentRefs: PARENTS } };
const FLEET = {
  gateway: { ingress: { enabled: true, hosts: ["*.matrix.example"] } },
  console: { enabled: true, url: "https://console.example", ingress: { enabled: true } },
};

const render = async (chart: string, release: string, namespace: string, values: Values): Promise<Manifest[]> =>
  parseAllDocuments(await helm(["template", release, chart, "-n", namespace], values))
    .map((document) => document.toJS() as Manifest | null)
    .filter((manifest) => manifest !== null);
const shards = (...values: Values[]) => render(SHARDS, "synapse-shards", "shards", merged(FLEET, ON, ...values));
const stack = (...values: Values[]) =>
  render(CHART, "clinic-a", "clinics", merged(MINIMAL, { synapse: KEYS }, ON, ...values));
const asTenant = { synapse: { asTenantHook: { ...HOOK, enabled: true } } };
const kinds = (manifests: Manifest[], kind: string) =>
  manifests.filter((manifest) => manifest.kind === kind).map(({ metadata }) => metadata.name);

describe.skipIf(withoutHelm)("routes of the Gateway API", () => {
  it("has one wildcard route for the whole fleet, and one for the console, in place of the Ingresses", async () => {
    const rendered = await shards();
    expect(kinds(rendered, "Ingress")).toEqual([]);
    expect(find(rendered, "HTTPRoute", "synapse-shards-gateway").spec).toEqual({
      parentRefs: PARENTS,
      hostnames: ["*.matrix.example"],
      rules: [
        {
          matches: [{ path: { type: "PathPrefix", value: "/" } }],
          backendRefs: [{ name: "synapse-shards-gateway", port: 8008 }],
        },
      ],
    });
    const { hostnames, rules } = find(rendered, "HTTPRoute", "synapse-shards-console").spec;
    expect([hostnames, rules[0].backendRefs]).toEqual([
      ["console.example"],
      [{ name: "synapse-shards-controller", port: 8011 }],
    ]);
  });

  it("leads to ports that the Services have", async () => {
    const rendered = await shards();
    for (const route of rendered.filter(({ kind }) => kind === "HTTPRoute")) {
      for (const { backendRefs } of route.spec.rules) {
        for (const { name, port } of backendRefs)
          expect(find(rendered, "Service", name).spec.ports.map((one: { port: number }) => one.port)).toContain(port);
      }
    }
  });

  it("keeps the Ingresses beside where that is asked for, and has Ingresses alone by default", async () => {
    const both = await shards({ gatewayApi: { ingresses: true } });
    expect(kinds(both, "Ingress")).toEqual(kinds(both, "HTTPRoute"));
    const before = await shards({ gatewayApi: { enabled: false } });
    expect([kinds(before, "HTTPRoute"), kinds(before, "Ingress").length]).toEqual([[], 2]);
  });

  it("says that a Gateway has to be named", async () => {
    const none = { gatewayApi: { parentRefs: [] } };
    for (const rendering of [() => shards(none), () => stack(none)])
      await expect(rendering()).rejects.toThrow(/gatewayApi.parentRefs is empty; name the Gateway/);
  });

  it("has a tenant's route where the cluster's gateway is, as it leads to no ExternalName", async () => {
    const rendered = await stack(asTenant);
    const route = find(rendered, "HTTPRoute", "clinic-a-synapse");
    expect(route.metadata.namespace).toBe("shards");
    expect(route.spec.hostnames).toEqual(["matrix.clinic-a.example"]);
    expect(route.spec.rules[0].backendRefs).toEqual([{ name: "synapse-shards-gateway", port: 8008 }]);
    expect(route.spec.rules[0].matches.map(({ path }: any) => path.value)).toEqual(["/_matrix", "/_synapse/client"]);
    expect(kinds(rendered, "Ingress")).toEqual([]);
  });

  it("has a standalone homeserver's route beside its Service", async () => {
    const { metadata, spec } = find(await stack(), "HTTPRoute", "clinic-a-synapse");
    expect(metadata.namespace).toBe("clinics");
    expect(spec.rules[0].backendRefs).toEqual([{ name: "clinic-a-synapse", port: 8008 }]);
  });

  it("has no route of a tenant that the fleet's leads to", async () => {
    expect(kinds(await stack(asTenant, { gatewayApi: { ownRoute: false } }), "HTTPRoute")).toEqual([]);
  });

  it("leads to Matrix Authentication Service in the release's namespace, which lets the route in", async () => {
    const rendered = await companion(merged(HOSTNAMES, ESS_VALUES, TENANT, ON));
    const [name = ""] = kinds(rendered, "HTTPRoute");
    const route = find(rendered, "HTTPRoute", name);
    const service = "ess-matrix-authentication-service";
    const [login, rest] = route.spec.rules;
    expect([route.spec.rules.length, rest.backendRefs[0].name]).toEqual([2, "synapse-shards-gateway"]);
    // In one rule: a route may have no more than 16.
    expect(login.matches.map(({ path }: any) => path.value).toSorted()).toEqual(
      ["api/v1", "r0", "unstable", "v3"].flatMap((version) =>
        ["login", "logout", "refresh"].map((name) => `/_matrix/client/${version}/${name}`),
      ),
    );
    expect(login.backendRefs).toEqual([{ name: service, namespace: "ess", port: 8080 }]);
    const grant = rendered.find(({ kind }) => kind === "ReferenceGrant")!;
    expect(grant.spec).toEqual({
      from: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", namespace: "shards" }],
      to: [{ group: "", kind: "Service", name: service }],
    });
    expect(grant.metadata.namespace ?? "ess").toBe("ess");
  });

  it("has a name of its own in the gateway's namespace, whatever the namespace and the release", async () => {
    const named = async (release: string, namespace: string, tenantName = "") => {
      const wellKnown = { wellKnownDelegation: { ingress: { host: "clinic.example" } } };
      const values = merged(MINIMAL, { synapse: KEYS }, ON, asTenant, wellKnown, {
        synapse: { asTenantHook: { tenantName } },
      });
      return kinds(await render(CHART, release, namespace, values), "HTTPRoute");
    };
    expect(await named("b", "a", "first")).toEqual(["first-synapse", "first-well-known"]);
    const names = [...(await named("b-c", "a")), ...(await named("c", "a-b"))];
    expect(names).toEqual(["b-c-synapse", "b-c-well-known", "c-synapse", "c-well-known"]);
  });

  it("leads to each Service by one rule for up to 64 paths", async () => {
    const path = (number: number) => ({
      path: `/x${number}`,
      availability: "only_externally",
      service: { name: number === 0 ? "first" : "second", port: { number: 81 } },
    });
    const additionalPaths = Array.from({ length: 70 }, (_, number) => path(number));
    const { rules } = find(
      await stack({ synapse: { ingress: { additionalPaths } } }),
      "HTTPRoute",
      "clinic-a-synapse",
    ).spec;
    expect(rules.map(({ backendRefs, matches }: any) => [backendRefs[0].name, matches.length])).toEqual([
      ["first", 1],
      ["second", 64],
      ["second", 5],
      ["clinic-a-synapse", 2],
    ]);
  });

  it("says that another Service's port needs a number", async () => {
    const path = (port: object) => ({
      synapse: {
        ingress: {
          additionalPaths: [{ path: "/x", availability: "only_externally", service: { name: "other", port } }],
        },
      },
    });
    await expect(stack(path({ name: "http" }))).rejects.toThrow(
      /\/x has service.port.name, and a route .* needs service.port.number/,
    );
    const route = find(await stack(path({ number: 81 })), "HTTPRoute", "clinic-a-synapse");
    expect(route.spec.rules[0].backendRefs).toEqual([{ name: "other", port: 81 }]);
  });

  it("brings a listener with a host's own certificate to a shared Gateway, for routes of the gateway's namespace", async () => {
    const listener = { gatewayApi: { listenerSet: { enabled: true } }, certManager: { clusterIssuer: "letsencrypt" } };
    const rendered = await stack(asTenant, listener);
    const set = rendered.find(({ kind, metadata }) => kind === "ListenerSet" && metadata.name === "clinic-a-synapse")!;
    expect(set.metadata.annotations).toEqual({ "cert-manager.io/cluster-issuer": "letsencrypt" });
    expect(set.spec.parentRef).toEqual({ name: "public", namespace: "infra" });
    expect(set.spec.listeners).toMatchObject([
      {
        hostname: "matrix.clinic-a.example",
        port: 443,
        tls: { certificateRefs: [{ name: "clinic-a-synapse-tls" }] },
        allowedRoutes: { namespaces: { selector: { matchLabels: { "kubernetes.io/metadata.name": "shards" } } } },
      },
    ]);
    expect(find(rendered, "HTTPRoute", "clinic-a-synapse").spec.parentRefs).toEqual([
      { group: "gateway.networking.k8s.io", kind: "ListenerSet", name: "clinic-a-synapse", namespace: "clinics" },
    ]);
    await expect(stack(asTenant, { gatewayApi: { listenerSet: { enabled: true } } })).rejects.toThrow(/no certificate/);
  });
});
