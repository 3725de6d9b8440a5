import { stringify } from "yaml";
import { ARCHIVED } from "./archive.ts";
import { hostOf } from "./names.ts";
import { readSynapseYaml } from "./synapse-yaml.ts";
import type { TenantSecretData } from "./tenant-secrets.ts";

/** What a tenant becomes where a plain Synapse runs it. */
export interface PlainHomeserver {
  /** Contents of files by their paths: homeserver.yaml, and those that it names. */
  files: Map<string, string>;
  /** What whoever runs it has to know, a sentence each. */
  notes: string[];
}

export interface PlainHomeserverRequest {
  serverName: string;
  /** The tenant's part of homeserver.yaml, as it runs. */
  config: string;
  secrets: TenantSecretData;
  /** Keys that the operator gives all tenants: they are the operator's, and stay. */
  operatorsKeys: readonly string[];
}

type Mapping = Record<string, unknown>;

/** The port that Synapse's own documentation has for it behind a reverse proxy. */
const PORT = 8008;
const PASSWORD = "CHANGE-ME";
/** Python modules that exist only in a shard. */
const OURS = "multi_synapse.";

/** A tenant's configuration for a plain Synapse: what it had inline for want of files is in files again, and nothing of the platform is left. */
export function plainHomeserver(request: PlainHomeserverRequest): PlainHomeserver {
  const { serverName, secrets, operatorsKeys } = request;
  const files = new Map<string, string>();
  const notes: string[] = [];
  const { synapse_shards: inline, ...own } = readSynapseYaml(request.config);
  const options = { ...own };
  const { signing_key: signingKey } = options;
  delete options["signing_key"];
  const key = typeof signingKey === "string" && signingKey.trim() !== "" ? signingKey : secrets.signingKey;
  files.set(ARCHIVED.signingKey, `${key.trimEnd()}\n`);
  files.set(ARCHIVED.logConfig, LOG_CONFIG);
  Object.assign(options, inFiles(mapping(inline), options, files));
  keepModules(options, files, notes);
  if (options["database"] === undefined || options["database"] === null) options["database"] = databaseToMake();
  else
    notes.push(
      "`database` is the one that the homeserver brought along and still uses; the dump is a copy. Use one of them.",
    );
  if (typeof options["public_baseurl"] !== "string") {
    options["public_baseurl"] = `https://${hostOf(serverName)}/`;
    notes.push("`public_baseurl` is made of the server name: put your own address there if clients use another one.");
  }
  const left = operatorsKeys.filter((name) => !(name in own));
  if (left.length > 0)
    notes.push(`The operator's settings for all homeservers are not included: ${left.join(", ")}. Set your own.`);
  const { hosts: further } = mapping(inline);
  if (Array.isArray(further) && further.length > 0)
    notes.push(
      `It also answered at ${further.join(", ")}: lead these names to it by your web server, if they are still used.`,
    );
  if (JSON.stringify(options["media_storage_providers"] ?? "").includes("s3_storage_provider"))
    notes.push(
      "`media_storage_providers` names a bucket, which holds media that are not in this archive; Synapse needs the package `synapse-s3-storage-provider` to read it.",
    );
  const resources = ["client", "federation", ...(options["user_consent"] ? ["consent"] : [])];
  const whole = {
    server_name: serverName,
    pid_file: "homeserver.pid",
    listeners: [
      {
        port: PORT,
        type: "http",
        tls: false,
        bind_addresses: ["127.0.0.1"],
        x_forwarded: true,
        resources: [{ names: resources, compress: false }],
      },
    ],
    media_store_path: ARCHIVED.media,
    log_config: ARCHIVED.logConfig,
    signing_key_path: ARCHIVED.signingKey,
    macaroon_secret_key: secrets.macaroonSecretKey,
    form_secret: secrets.formSecret,
    registration_shared_secret: secrets.registrationSharedSecret,
    report_stats: false,
    trusted_key_servers: [],
    suppress_key_server_warning: true,
    ...options,
  };
  files.set(ARCHIVED.config, `${HEAD}${yaml(whole)}`);
  return { files, notes };
}

const HEAD = `# For a plain Synapse, started in this directory; README.md has the steps.
# Replace ${PASSWORD} by the password of the database's user.
`;

const LOG_CONFIG = yaml({
  version: 1,
  formatters: {
    precise: { format: "%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s" },
  },
  handlers: { console: { class: "logging.StreamHandler", formatter: "precise" } },
  loggers: { "synapse.storage.SQL": { level: "INFO" } },
  root: { level: "INFO", handlers: ["console"] },
  disable_existing_loggers: false,
});

const CERTIFICATES = /-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----/gs;

function databaseToMake(): Mapping {
  const args = { user: "synapse", password: PASSWORD, dbname: "synapse", host: "localhost", port: 5432 };
  return { name: "psycopg2", args: { ...args, cp_min: 5, cp_max: 10 } };
}

/** The reverse of what a shard does with them (multi_synapse/options/inline.py). @returns options that name the files */
function inFiles(inline: Mapping, options: Mapping, files: Map<string, string>): Mapping {
  const made: Mapping = {};
  const services = Array.isArray(inline["app_services"]) ? (inline["app_services"] as unknown[]) : [];
  if (services.length > 0)
    made["app_service_config_files"] = services.map((service, index) => {
      const path = `app-services/${index}.yaml`;
      files.set(path, yaml({ url: null, namespaces: {}, ...mapping(service) }));
      return path;
    });
  const templates = texts(mapping(inline["templates"]));
  for (const [name, text] of templates) files.set(`templates/${name}`, text);
  if (templates.length > 0) made["templates"] = { custom_template_directory: "templates" };
  let consents = 0;
  for (const [language, pages] of Object.entries(mapping(inline["consent_templates"])))
    for (const [version, text] of texts(mapping(pages))) {
      files.set(`consent/${language}/${version}.html`, text);
      consents += 1;
    }
  if (consents > 0) made["user_consent"] = { ...mapping(options["user_consent"]), template_dir: "consent" };
  for (const [name, text] of texts(inline)) {
    if (name === "federation_authorities") {
      // Synapse takes one of each file, and passes over all others in it.
      made["federation_custom_ca_list"] = (text.match(CERTIFICATES) ?? [text]).map((certificate, index) => {
        const path = `federation-authority-${index}.pem`;
        files.set(path, certificate);
        return path;
      });
    }
    if (name === "database_authorities" && options["database"]) {
      files.set("database-authorities.pem", text);
      const database = mapping(options["database"]);
      const args = { ...mapping(database["args"]), sslrootcert: "database-authorities.pem" };
      made["database"] = { ...database, args };
    }
  }
  return made;
}

/** Leaves out those that are the platform's, and says what they did. */
function keepModules(options: Mapping, files: Map<string, string>, notes: string[]): void {
  if (!Array.isArray(options["modules"])) return;
  const kept: unknown[] = [];
  for (const module of options["modules"] as unknown[]) {
    const name = mapping(module)["module"];
    if (typeof name !== "string" || !name.startsWith(OURS)) {
      kept.push(module);
      if (typeof name === "string") notes.push(`Synapse needs the Python module \`${name}\`: install its package.`);
      continue;
    }
    for (const [document, content] of Object.entries(mapping(mapping(module)["config"])))
      files.set(`well-known/${document}`, `${JSON.stringify(content, null, 2)}\n`);
    notes.push(
      "Serve the files of `well-known/` as `https://SERVER_NAME/.well-known/matrix/…` by your web server: the platform did so until now.",
    );
  }
  if (kept.length > 0) options["modules"] = kept;
  else delete options["modules"];
}

function mapping(value: unknown): Mapping {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Mapping) : {};
}

function texts(value: Mapping): [string, string][] {
  return Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === "string");
}

/** As PyYAML reads it: YAML 1.1, in which `no` and `1:20` are no texts unless they are quoted. */
function yaml(value: unknown): string {
  return stringify(withKeys(value), {
    version: "1.1",
    lineWidth: 0,
    // Else a Map, which has keys of other types too, becomes a list.
    customTags: (tags) => tags.filter((tag) => typeof tag !== "object" || !tag.tag.endsWith(":omap")),
  });
}

/** Keys that are no texts begin with a NUL where they were read. */
function withKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withKeys);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, item]): [unknown, unknown] => {
    const number = Number(key.slice(1));
    return [key.startsWith("\0") && Number.isSafeInteger(number) ? number : key, withKeys(item)];
  });
  return new Map(entries);
}
