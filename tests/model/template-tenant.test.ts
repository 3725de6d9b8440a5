import { expect, test } from "vitest";
import { withAuthenticationService } from "../../src/model/authentication-service.ts";
import { UserError } from "../../src/model/errors.ts";
import { readSynapseYaml } from "../../src/model/synapse-yaml.ts";
import { fromTemplate } from "../../src/model/template-tenant.ts";
import type { TenantSpec } from "../../src/model/tenant.ts";

const specWith = (more: Partial<TenantSpec>): TenantSpec => ({
  serverName: "a.example",
  release: "1.163.2",
  config: "",
  reclaimPolicy: "Delete",
  ...more,
});

test("takes what an operator decided, and not what the tenant is or went through", () => {
  const { spec, left } = fromTemplate(
    specWith({
      labels: { plan: "small", "synapse-shards.io/applied": "true" },
      placement: { isolate: true, doNotMoveUntil: "2030-01-01T00:00:00Z" },
      isolation: "dedicated",
      hibernation: { mode: "Never" },
      plan: "small",
      quotas: { users: 5 },
      suspended: true,
      revision: 7,
      dedicated: { address: "x:1" },
    }),
  );
  expect(left).toEqual([]);
  expect(spec).toEqual({
    release: "1.163.2",
    config: "",
    labels: { plan: "small" },
    placement: { isolate: true },
    isolation: "dedicated",
    hibernation: { mode: "Never" },
    plan: "small",
    quotas: { users: 5 },
  });
});

test("leaves out keys, hosts, databases, buckets and bridges, and keeps the rest as it is written", () => {
  const config = `# Of the clinic group
enable_registration: false # by invitation
public_baseurl: https://matrix.a.example/
signing_key: ed25519 a_x AAAA
database: {name: psycopg2, args: {host: db, dbname: a, user: a}}
jwt_config: {enabled: true, secret: shared, algorithm: HS256}
matrix_authentication_service: {enabled: true, endpoint: "http://mas", secret: shared}
experimental_features: {msc3861: {enabled: true, admin_token: shared}, msc3030_enabled: true}
media_storage_providers:
  - module: s3_storage_provider.S3StorageProviderBackend
    config: {bucket: a}
synapse_shards:
  templates: {x.html: hello}
  app_services: [{id: bridge}]
  hosts: [chat.a.example]
password_config: {pepper: secret, policy: {enabled: true}}
rc_message: {per_second: 5}
`;
  const { spec, left } = fromTemplate(specWith({ config }));
  expect(left).toEqual([
    "public_baseurl",
    "signing_key",
    "password_config.pepper",
    "jwt_config",
    "matrix_authentication_service",
    "experimental_features.msc3861",
    "database",
    "media_storage_providers",
    "synapse_shards.app_services",
    "synapse_shards.hosts",
  ]);
  expect(spec.config).toContain("# by invitation");
  expect(readSynapseYaml(spec.config)).toEqual(
    readSynapseYaml(`enable_registration: false
experimental_features: {msc3030_enabled: true}
synapse_shards: {templates: {x.html: hello}}
password_config: {policy: {enabled: true}}
rc_message: {per_second: 5}`),
  );
});

test("refuses a configuration whose merge keys would bring a key back", () => {
  const config = "x-a: &a {signing_key: one}\n<<: *a\nenable_metrics: true\n";
  expect(() => fromTemplate(specWith({ config }))).toThrow(UserError);
  const aliased = "signing_key: &k one\nemail: {notif_from: *k}\n";
  expect(() => fromTemplate(specWith({ config: aliased }))).toThrow(/without signing_key/);
});

test("a configuration of nothing but its own leaves an empty one", () => {
  expect(fromTemplate(specWith({ config: "public_baseurl: https://a.example/\n" })).spec.config).toBe("");
});

test("leaves out what an authentication service was the reason of, as a homeserver without one would let nobody in", () => {
  const own = "password_config: {policy: {enabled: true}}\nexperimental_features: {msc3030_enabled: true}\n";
  const config = withAuthenticationService(own, { url: "http://127.0.0.1:8090", secret: "s" });
  const { spec, left } = fromTemplate(specWith({ config }));
  expect(readSynapseYaml(spec.config)).toEqual(readSynapseYaml(own));
  expect(left).toEqual([
    "matrix_authentication_service",
    "password_config.enabled",
    "experimental_features.msc4108_enabled",
  ]);
  // Without a service, a homeserver that has no passwords has none for a reason of its own.
  const without = "password_config:\n  enabled: false\n";
  expect(fromTemplate(specWith({ config: without })).spec.config).toBe(without);
  const unused = `matrix_authentication_service:\n  enabled: false\n${without}`;
  expect(fromTemplate(specWith({ config: unused })).spec.config).toBe(without);
});
