import { expect, test } from "vitest";
import { parseGatewayConfig } from "../../../src/gateway/config.ts";
import { ClusterConfigSchema } from "../../../src/model/cluster-config.ts";
import { pathsIn } from "../../../src/platforms/local/data-directory.ts";
import {
  controllerConfig,
  gatewayConfig,
  settingsForNextStart,
  withFixedSettings,
  type ClusterFacts,
} from "../../../src/platforms/local/up/part-configs.ts";

const facts = {
  paths: pathsIn("/data"),
  ports: { http: 8008, https: 8448, metrics: 9000, api: 8010 },
  authority: { certificate: "/data/ca.crt", key: "/data/ca.key" },
  apiUrl: "http://127.0.0.1:8010",
} as unknown as ClusterFacts;

const database = { host: "127.0.0.1", port: 1, adminUser: "postgres", passwordFile: "/data/postgres.password" };
const gatewayUrls = { http: "", https: "" };

const read = (gateway: object) => ClusterConfigSchema.parse({ gateway });

test("the gateway takes the configuration that is made for it, and trusts the proxies that the cluster's names", () => {
  const cluster = read({ trustedProxies: ["127.0.0.1", "10.0.0.0/8", "::1"], certificateDomains: ["clinic.example"] });
  const config = parseGatewayConfig(JSON.parse(JSON.stringify(gatewayConfig(cluster, facts))), "gateway.json");
  expect(config.trustedProxies).toEqual(["127.0.0.1", "10.0.0.0/8", "::1"]);
});

test.each(["nginx", "10.0.0.0/99", "*"])("a trusted proxy named %s is refused with what is allowed", (entry) => {
  expect(() => read({ trustedProxies: [entry] })).toThrow(/an IP address or a network/);
});

test("the store's key is beside it, or where the configuration says", () => {
  const keyOf = (config: object) =>
    controllerConfig(ClusterConfigSchema.parse(config), { ...facts, database, gatewayUrls } as unknown as ClusterFacts)
      .storeKeyFile;
  expect(keyOf({})).toBe("/data/store.key");
  expect(keyOf({ storeKeyFile: "/keys/store.key" })).toBe("/keys/store.key");
});

test("another place for the plots takes effect at the next start, and stays as it was until then", () => {
  const [before, after] = [
    read({}),
    ClusterConfigSchema.parse({ history: { prometheus: { url: "http://127.0.0.1:9090" } } }),
  ];
  expect(settingsForNextStart(before, after)).toEqual(["history"]);
  expect(withFixedSettings(before, after).history).toEqual({});
});

test("proxies before the controller are named as those before the gateway are, and change at the next start", () => {
  const trustedProxies = ["127.0.0.1", "10.0.0.0/8"];
  const [before, after] = [{}, { trustedProxies }].map((api) => ClusterConfigSchema.parse({ api }));
  const all = { ...facts, database, gatewayUrls } as unknown as ClusterFacts;
  expect(controllerConfig(before!, all).api.trustedProxies).toEqual([]);
  expect(controllerConfig(after!, all).api.trustedProxies).toEqual(trustedProxies);
  expect(settingsForNextStart(before!, after!)).toEqual(["api.trustedProxies"]);
  expect(() => ClusterConfigSchema.parse({ api: { trustedProxies: ["nginx"] } })).toThrow(/an IP address or a network/);
});

test("the entrance for administrators is the gateway's only where the configuration has it, and never among what tenants reach", () => {
  const made = (gateway: object, ports: object = {}) => {
    const all = { ...facts, database, gatewayUrls, ports: { ...facts.ports, ...ports } } as unknown as ClusterFacts;
    const cluster = read(gateway);
    const config = parseGatewayConfig(JSON.parse(JSON.stringify(gatewayConfig(cluster, all))), "gateway.json");
    return { config, controller: controllerConfig(cluster, all) };
  };
  expect(made({}).config.adminAccess).toBeUndefined();
  const adminAccess = { port: 0, allowedNetworks: ["10.0.0.0/8"], tenantAdmins: true, ui: "https://admin.example" };
  const { config, controller } = made({ adminAccess }, { admin: 9449 });
  expect(config.adminAccess).toEqual({
    host: "127.0.0.1",
    port: 9449,
    tls: true,
    allowedNetworks: ["10.0.0.0/8"],
    origins: ["https://admin.example"],
  });
  expect(controller.adminPort).toBe(9449);
  expect(JSON.stringify(controller.gatewayUrls)).not.toContain("9449");
});

test("a changed entrance for administrators takes effect at the next start, and stays as it was until then", () => {
  const [before, after] = [read({}), read({ adminAccess: {} })];
  expect(settingsForNextStart(before, after)).toEqual(["gateway.adminAccess"]);
  expect(withFixedSettings(before, after).gateway.adminAccess).toBeUndefined();
});
