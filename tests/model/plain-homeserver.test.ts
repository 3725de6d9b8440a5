import { expect, it } from "vitest";
import { parse } from "yaml";
import { plainHomeserver } from "../../src/model/plain-homeserver.ts";
import { readSynapseYaml } from "../../src/model/synapse-yaml.ts";
import { newTenantSecrets } from "../../src/model/tenant-secrets.ts";

const secrets = newTenantSecrets("clinic.example");
const of = (config: string, operatorsKeys: string[] = []) =>
  plainHomeserver({ serverName: "clinic.example", config, secrets, operatorsKeys });
const optionsOf = (config: string) => readSynapseYaml(of(config).files.get("homeserver.yaml") ?? "");

it("has everything that a plain Synapse needs, and nothing of the platform", () => {
  const { files, notes } = of("");
  expect([...files.keys()].toSorted()).toEqual(["homeserver.yaml", "log.yaml", "signing.key"]);
  expect(files.get("signing.key")).toBe(secrets.signingKey);
  const options = optionsOf("");
  expect(options).toMatchObject({
    server_name: "clinic.example",
    public_baseurl: "https://clinic.example/",
    macaroon_secret_key: secrets.macaroonSecretKey,
    media_store_path: "media_store",
    database: { name: "psycopg2", args: { password: "CHANGE-ME" } },
  });
  expect(files.get("homeserver.yaml")).not.toContain(secrets.databasePassword);
  expect(notes).toEqual([expect.stringContaining("public_baseurl")]);
});

it("keeps the tenant's own options as Synapse reads them, also where they look like something else", () => {
  const config = `
public_baseurl: https://matrix.clinic.example/
enable_registration: no
registration_shared_secret: 'no'
user_agent_suffix: "1:20"
rc_message: {per_second: 0.5, burst_count: 10}
mau_appservice_trial_days: {1: 5}
password_config: {pepper: "0o17"}
`;
  expect(optionsOf(config)).toMatchObject(readSynapseYaml(config));
});

it("puts into files again what was inline for want of them", () => {
  const { files } = of(`
signing_key: "ed25519 own AAAA"
synapse_shards:
  app_services: [{id: bridge, as_token: a, hs_token: b, sender_localpart: bridge}]
  templates: {notif_mail.html: "<p>Hello</p>"}
  consent_templates: {en: {"1.0": "<p>Policy</p>"}}
  federation_authorities: |
    -----BEGIN CERTIFICATE-----
    one
    -----END CERTIFICATE-----
    -----BEGIN CERTIFICATE-----
    two
    -----END CERTIFICATE-----
user_consent: {version: "1.0"}
`);
  const options = readSynapseYaml(files.get("homeserver.yaml") ?? "");
  expect(options).toMatchObject({
    app_service_config_files: ["app-services/0.yaml"],
    templates: { custom_template_directory: "templates" },
    user_consent: { version: "1.0", template_dir: "consent" },
    // Synapse takes one of each file.
    federation_custom_ca_list: ["federation-authority-0.pem", "federation-authority-1.pem"],
    signing_key_path: "signing.key",
  });
  expect(options).not.toHaveProperty("synapse_shards");
  expect(options).not.toHaveProperty("signing_key");
  expect(JSON.stringify(options["listeners"])).toContain("consent");
  expect(files.get("signing.key")).toBe("ed25519 own AAAA\n");
  expect(parse(files.get("app-services/0.yaml") ?? "")).toMatchObject({ id: "bridge", url: null });
  expect(files.get("federation-authority-1.pem")).toMatch(/\ntwo\n/);
  expect(files.get("templates/notif_mail.html")).toBe("<p>Hello</p>");
  expect(files.get("consent/en/1.0.html")).toBe("<p>Policy</p>");
});

it("says what it leaves out, and what Synapse needs besides", () => {
  const { files, notes } = of(
    `
modules:
  - {module: multi_synapse.well_known.WellKnown, config: {server: {"m.server": "matrix.clinic.example:443"}}}
  - {module: acme.Checker, config: {}}
email: {smtp_host: own}
`,
    ["email", "turn_uris"],
  );
  const options = readSynapseYaml(files.get("homeserver.yaml") ?? "");
  expect(options["modules"]).toMatchObject([{ module: "acme.Checker" }]);
  expect(JSON.parse(files.get("well-known/server") ?? "")).toEqual({ "m.server": "matrix.clinic.example:443" });
  const all = notes.join("\n");
  expect(all).toContain("acme.Checker");
  expect(all).toContain("well-known/");
  expect(all).toMatch(/not included: turn_uris\./);
});
