import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { readSynapseYaml } from "../../src/model/synapse-yaml.ts";
import {
  authenticationAddress,
  authenticationDestinations,
  authenticationSecret,
  authenticationUrlProblem,
  withAuthenticationService,
} from "../../src/model/authentication-service.ts";

describe("the URL of an authentication service", () => {
  it.each([
    ["http://127.0.0.1:8090", "127.0.0.1:8090", ["127.0.0.1:8090"]],
    ["http://[fd00::1]:8090/", "[fd00::1]:8090", ["[fd00::1]:8090"]],
    ["http://10.1.2.3", "10.1.2.3:80", ["10.1.2.3:80"]],
    ["http://mas.internal:8090", "mas.internal:8090", []],
    ["https://account.example", "https://account.example:443", []],
    ["https://10.1.2.3/", "https://10.1.2.3:443", ["10.1.2.3:443"]],
    ["https://[fd00::1]:8090", "https://[fd00::1]:8090", ["[fd00::1]:8090"]],
  ])("%s is for gateways %s, and opens %j", (url, address, destinations) => {
    expect(authenticationUrlProblem(url)).toBeUndefined();
    expect([authenticationAddress(url), authenticationDestinations(url)]).toEqual([address, destinations]);
  });

  it.each([
    "",
    "127.0.0.1:8090",
    "http://mas.example/auth",
    "http://user@mas.example",
    "http://mas.example?x",
    "http://mas.example/#x",
    "ftp://mas.example",
    "http://127.0.0.1:0",
    "https://127.0.0.1:0",
    "https://mas.example/auth",
    "http://sho!p:8090",
    "http://ma$s.example",
    `http://${"a".repeat(260)}`,
  ])("is not %s", (url) => expect(authenticationUrlProblem(url)).toContain("without a path"));
});

describe("the configuration of a tenant with one", () => {
  const service = { url: "http://127.0.0.1:8090", secret: "s" };

  it("keeps everything else, and is the same when it is made again", () => {
    const once = withAuthenticationService("# ours\nmax_upload_size: 5M # small\n", service);
    expect(once).toMatch(/^# ours\nmax_upload_size: 5M # small\n/);
    expect(withAuthenticationService(once, service)).toBe(once);
    expect(authenticationSecret(once)).toBe("s");
  });

  it("begins where there is none, and takes the place of what is no mapping", () => {
    for (const config of ["", "password_config:\nmatrix_authentication_service: 5\n"])
      expect(parse(withAuthenticationService(config, service))).toEqual({
        matrix_authentication_service: { enabled: true, endpoint: service.url, secret: "s" },
        password_config: { enabled: false },
        experimental_features: { msc4108_enabled: true },
      });
    expect(authenticationSecret("matrix_authentication_service: {secret: 5}")).toBeUndefined();
    expect(() => authenticationSecret("a: [")).toThrow(/the configuration/);
  });

  it("keeps values that YAML 1.2 reads otherwise, and turns passwords off however they are on", () => {
    const config = "a: 0777\nb: yes\npassword_config: {enabled: yes} # on\n";
    expect(readSynapseYaml(withAuthenticationService(config, service))).toMatchObject({
      a: 0o777,
      b: true,
      password_config: { enabled: false },
    });
  });

  it("has the secret that an alias stands for", () =>
    expect(authenticationSecret("x: &x s\nmatrix_authentication_service: {secret: *x}\n")).toBe("s"));

  it.each([
    ["an alias", "x: &x {policy: {enabled: true}}\npassword_config: *x\n"],
    ["what an alias elsewhere stands for", "password_config: &x {policy: {enabled: true}}\nx: *x\n"],
    ["a merge key", "x: &x {password_config: {policy: {enabled: true}}}\n<<: *x\n"],
    ["an alias as the secret, which would be lost", "matrix_authentication_service: {secret: &x old}\nx: *x\n"],
  ])("is not made where its options are %s", (_what, config) =>
    expect(() => withAuthenticationService(config, service)).toThrow(/without aliases and merge keys/),
  );
});
