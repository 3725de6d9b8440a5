import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { TenantSecrets } from "../../../../src/platforms/kubernetes/store/tenant-secrets.ts";
import type { SynapseTenant } from "../../../../src/platforms/kubernetes/store/resources.ts";
import { FakeApi } from "../support/fake-api.ts";

const OWN = "/api/v1/namespaces/shards/secrets";
const THEIRS = "/api/v1/namespaces/clinic/secrets";
const KEYS = {
  "signing.key": "ed25519 a_1 x\n",
  "macaroon-secret-key": "m",
  "form-secret": "f",
  "registration-shared-secret": "r",
};
const base64 = (data: Record<string, string>) =>
  Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]));
const secret = (data: Record<string, string>, tenant: string | null = "a") => ({
  metadata: { labels: tenant === null ? {} : { "synapse-shards.io/tenant": tenant } },
  data: base64(data),
});
const tenant = (spec: Partial<SynapseTenant["spec"]>): SynapseTenant => ({
  metadata: { name: "a", uid: "u" },
  spec: { clusterId: "c", serverName: "a.example", ...spec },
});
const ELSEWHERE = { secretName: "a-synapse", secretNamespace: "clinic" };

describe("a tenant's Secrets", () => {
  let api: FakeApi;
  let secrets: TenantSecrets;
  const changed: string[] = [];
  let tenants: SynapseTenant[] = [];
  beforeEach(async () => {
    api = await FakeApi.open();
    changed.length = 0;
    tenants = [];
    secrets = new TenantSecrets({
      config: api.config,
      namespace: "shards",
      onChange: (namespace, name) => void changed.push(`${namespace}/${name}`),
      onError: () => {},
      pollMs: 50,
    });
  });
  afterEach(async () => {
    await secrets.close();
    await api.close();
  });
  async function open(...all: SynapseTenant[]): Promise<void> {
    tenants = all;
    await secrets.open();
    await secrets.openGranted(() => tenants);
  }

  it("are read in the tenant's own namespace, with what further Secrets there hold", async () => {
    api.put(THEIRS, "a-synapse", secret({ "homeserver.yaml": "database: {args: {user: u}}\n", ...KEYS }));
    api.put(THEIRS, "postgres", secret({ password: "hush" }));
    api.put(THEIRS, "generated", secret({ KEY: "ed25519 a_2 y\n" }));
    const a = tenant({
      ...ELSEWHERE,
      secretRefs: [
        { for: "homeserver.yaml", path: "/database/args/password", name: "postgres", key: "password" },
        { for: "signing.key", name: "generated", key: "KEY" },
      ],
    });
    await open(a);
    expect(secrets.configOf(a)).toContain('password: "hush"');
    expect(secrets.problemOf(a)).toBeUndefined();
    expect(await secrets.read(a)).toMatchObject({ signingKey: "ed25519 a_2 y", macaroonSecretKey: "m" });
    expect(a.spec.secretRefs).toHaveLength(2);

    changed.length = 0;
    api.put(THEIRS, "postgres", secret({ password: "changed" }));
    await expect.poll(() => changed).toContain("clinic/postgres");
    expect(secrets.configOf(a)).toContain('password: "changed"');
  });

  it("bring bridges along, and the object further names, which are a part of the configuration and of its changes", async () => {
    api.put(THEIRS, "a-synapse", secret({ "homeserver.yaml": "synapse_shards: {hosts: [chat.a.example]}\n", ...KEYS }));
    api.put(THEIRS, "bridge", secret({ "r.yaml": "id: bridge\nas_token: x\n" }));
    const a = tenant({
      ...ELSEWHERE,
      hosts: ["a-synapse.clinic.svc"],
      secretRefs: [{ for: "app-service", name: "bridge", key: "r.yaml" }],
    });
    await open(a);
    expect(parse(secrets.configOf(a) ?? "")).toEqual({
      synapse_shards: {
        hosts: ["chat.a.example", "a-synapse.clinic.svc"],
        app_services: [{ id: "bridge", as_token: "x" }],
      },
    });
    a.spec.hosts = [];
    expect(secrets.configOf(a)).not.toContain("a-synapse.clinic.svc");
    expect(secrets.problemOf(a)).toBeUndefined();

    const plain = tenant({ ...ELSEWHERE, hosts: ["b.clinic.svc"] });
    expect(parse(secrets.configOf(plain) ?? "").synapse_shards.hosts).toEqual(["chat.a.example", "b.clinic.svc"]);
  });

  it("of other tenants are refused: a Secret is used for the tenant that its label names, and for no other", async () => {
    const data = { "homeserver.yaml": "a: 1\n", ...KEYS };
    api.put(OWN, "b-synapse-tenant", secret(data, "b"));
    api.put(THEIRS, "of-b", secret(data, "b"));
    api.put(THEIRS, "unlabelled", secret(data, null));
    api.put(THEIRS, "a-synapse", secret(data));
    const cases = [
      tenant({ secretName: "b-synapse-tenant" }),
      tenant({ secretName: "of-b", secretNamespace: "clinic" }),
      tenant({ secretName: "unlabelled", secretNamespace: "clinic" }),
      tenant({ ...ELSEWHERE, secretRefs: [{ for: "homeserver.yaml", path: "/x", name: "of-b", key: "signing.key" }] }),
    ];
    await open(...cases);
    for (const each of cases) {
      expect(secrets.problemOf(each)).toMatchObject({ reason: "SecretNotLabelled" });
      expect(secrets.configOf(each)).toBeUndefined();
      await expect(secrets.read(each)).rejects.toMatchObject({ code: "InvalidConfig" });
    }
  });

  it("that are deleted leave the configuration as it was, and what is missing is said", async () => {
    api.put(OWN, "mine", secret({ "homeserver.yaml": "a: 1\n", ...KEYS }));
    const a = tenant({ secretName: "mine" });
    await open(a);
    expect(secrets.configOf(a)).toBe("a: 1\n");
    api.remove(OWN, "mine");
    await expect.poll(() => secrets.problemOf(a)?.reason).toBe("SecretMissing");
    expect(secrets.configOf(a)).toBe("a: 1\n");
    await expect(secrets.read(a)).rejects.toThrow("there is no Secret shards/mine, which the SynapseTenant a names");
    api.put(OWN, "mine", secret({ "homeserver.yaml": "a: 2\n" }));
    await expect
      .poll(() => secrets.problemOf(a))
      .toMatchObject({
        reason: "SecretKeyMissing",
        message: expect.stringContaining("no key signing.key"),
      });
  });

  it("that the namespace does not grant, or whose API server is away, are told apart from missing ones", async () => {
    const a = tenant(ELSEWHERE);
    api.fault = ({ path }) => (path.startsWith(THEIRS) ? 403 : undefined);
    await open(a);
    expect(secrets.problemOf(a)).toMatchObject({ reason: "SecretForbidden" });
    api.put(THEIRS, "a-synapse", secret({ "homeserver.yaml": "a: 1\n", ...KEYS }));
    api.fault = () => undefined;
    await expect.poll(() => secrets.problemOf(a)).toBeUndefined();
    api.fault = ({ path }) => (path.startsWith(THEIRS) ? 500 : undefined);
    await secrets.refresh(a);
    expect(secrets.problemOf(a)).toBeUndefined();
    expect(secrets.configOf(a)).toBe("a: 1\n");
  }, 20_000);
});
