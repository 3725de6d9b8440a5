import { createPrivateKey, sign } from "node:crypto";
import { describe, expect, it } from "vitest";
import { publicKeysOf } from "../../../src/model/signing-keys.ts";
import { newTenantSecrets } from "../../../src/model/tenant-secrets.ts";
import { dnsOf } from "../../../src/model/tenant-dns.ts";
import { PublicAccessSchema } from "../../../src/model/public-access.ts";
import { withDomain } from "../../../src/controller/service/onboarding.ts";

const access = PublicAccessSchema.parse({});
const create = (request: object, more: object = {}) => withDomain({ name: "z", ...request }, { ...access, ...more });

describe("a tenant's domain", () => {
  it("is its server name, and its homeserver's host is in its configuration", () => {
    expect(create({ domain: "clinic-z.example" })).toEqual({
      name: "z",
      serverName: "clinic-z.example",
      config: 'public_baseurl: "https://matrix.clinic-z.example/"\n',
    });
    const config = "# ours\nallow_guest_access: true\n";
    expect(create({ domain: "z.example", host: "chat.z.example", config }, { httpsPort: 8448 }).config).toBe(
      `public_baseurl: "https://chat.z.example:8448/"\n${config}`,
    );
  });

  it("leaves a configuration with a URL alone, unless that contradicts the host", () => {
    const config = "public_baseurl: https://chat.z.example/\n";
    expect(create({ domain: "z.example", config }).config).toBe(config);
    expect(create({ domain: "z.example", host: "chat.z.example", config }).config).toBe(config);
    expect(() => create({ domain: "z.example", host: "other.z.example", config })).toThrow(/give one of the two/);
  });

  it.each([
    [{ domain: "z.example", serverName: "z.example" }, /domain or serverName, not both/],
    [{ host: "chat.z.example" }, /give the domain as well/],
    [{ domain: "z.example:8448" }, /no port/],
    [{ domain: "192.0.2.1" }, /no address/],
    [{ domain: "z.example", config: "--- {a: 1}" }, /add public_baseurl: https:\/\/matrix\.z\.example\/ to it/],
    [{ domain: "z.example", config: "{a: 1}" }, /add public_baseurl/],
  ])("is refused in %j", (request, words) => expect(() => create(request)).toThrow(words));
});

describe("what has to be published", () => {
  it("is one record for a name with its homeserver, and files where a web site has the name", () => {
    const addresses = ["203.0.113.5", "2001:db8::5"];
    const own = dnsOf("a.example", "https://a.example/", { addresses });
    expect(own.records.map(({ name, type, value }) => [name, type, value])).toEqual([
      ["a.example", "A", "203.0.113.5"],
      ["a.example", "AAAA", "2001:db8::5"],
    ]);
    expect([own.wellKnown, own.srv]).toEqual([[], null]);
    const delegated = dnsOf("a.example", "https://matrix.a.example/", { addresses: [] });
    expect(delegated.records.map(({ name, type, value }) => [name, type, value])).toEqual([
      ["matrix.a.example", "A", ""],
      ["a.example", "A", ""],
    ]);
    expect(delegated.wellKnown[0]).toEqual({
      url: "https://a.example/.well-known/matrix/server",
      content: { "m.server": "matrix.a.example:443" },
    });
    expect(delegated.srv).toBe("_matrix-fed._tcp.a.example. 3600 IN SRV 10 5 443 matrix.a.example.");
  });
});

it("public keys are read in Synapse's signing key file", () => {
  const { signingKey } = newTenantSecrets("a.example");
  const [, id = "", seed = ""] = signingKey.trim().split(" ");
  const keys = publicKeysOf(signingKey);
  expect(Object.keys(keys)).toEqual([`ed25519:${id}`]);
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), Buffer.from(seed, "base64")]);
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  expect(sign(null, Buffer.from("x"), key)).toHaveLength(64);
  expect(Buffer.from(keys[`ed25519:${id}`]!, "base64")).toHaveLength(32);
  expect(publicKeysOf("nothing\nrsa a b\n")).toEqual({});
});
