import { dirname } from "node:path";
import type { OptionVerdict } from "../../model/import.ts";
import { UserError } from "../../model/errors.ts";
import { serverNameProblem } from "../../model/names.ts";
import { readSynapseYaml } from "../../model/synapse-yaml.ts";
import { YamlProblem } from "../../model/bounded-yaml.ts";
import { newTenantSecrets, type TenantSecretData } from "../../model/tenant-secrets.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import type { ImportSource } from "../../ports/imports.ts";

type Mapping = Record<string, unknown>;

/** A homeserver.yaml whose files are inline, and what of it goes elsewhere. */
export interface Translated {
  serverName: string;
  /** For the review. */
  options: Mapping;
  changed: OptionVerdict[];
  secrets: TenantSecretData;
  /** Where its media are. */
  mediaPath: string | undefined;
  database: { sqlite: string } | { login: DatabaseLogin } | undefined;
}

/** Secrets that the platform keeps for each tenant. */
const KEPT = {
  macaroon_secret_key: "macaroonSecretKey",
  form_secret: "formSecret",
  registration_shared_secret: "registrationSharedSecret",
} as const;

/** Options that name a file with what another option has inline. */
const FROM_FILES = {
  turn_shared_secret_path: "turn_shared_secret",
  recaptcha_public_key_path: "recaptcha_public_key",
  recaptcha_private_key_path: "recaptcha_private_key",
};

/** Reads a homeserver.yaml with the files that it names, and puts their contents where a tenant has them. @throws UserError InvalidConfig, InvalidInput */
export async function translate(source: ImportSource, file: string): Promise<Translated> {
  const directory = dirname(file);
  const options = parsed(await source.text(file, directory), file);
  const changed: OptionVerdict[] = [];
  const take = (option: string, why: string): unknown => {
    const value = options[option];
    delete options[option];
    if (value !== undefined && value !== null) changed.push({ option, verdict: "changed", why });
    return value ?? undefined;
  };
  const textOf = async (option: string, why: string): Promise<string | undefined> => {
    const path = take(option, why);
    return typeof path === "string" ? source.text(path, directory) : undefined;
  };

  const serverName = options["server_name"];
  if (typeof serverName !== "string")
    throw new UserError("InvalidConfig", `${file} has no server_name: it is no homeserver.yaml`);
  const wrong = serverNameProblem(serverName);
  if (wrong !== undefined) throw new UserError("InvalidConfig", `${file}: ${wrong}`);
  take("server_name", `it stays ${serverName}, as the tenant's identity`);

  const secrets = newTenantSecrets(serverName);
  const signingKey = await signingKeyOf(source, options, take, directory, serverName);
  secrets.signingKey = signingKey;
  for (const [option, key] of Object.entries(KEPT)) {
    const inline = take(option, "it is kept with the tenant's keys");
    const inFile = await textOf(`${option}_path`, "its content is kept with the tenant's keys");
    const value = typeof inline === "string" && inline !== "" ? inline : inFile?.trim();
    if (value) secrets[key] = value;
    else if (option !== "registration_shared_secret")
      changed.push({ option, verdict: "changed", why: "there is none: the tenant gets one" });
  }
  for (const [option, inline] of Object.entries(FROM_FILES)) {
    const content = await textOf(option, `its content becomes ${inline}`);
    if (content !== undefined) options[inline] = content.trim();
  }
  await filesInline(source, options, take, directory);
  if (!("trusted_key_servers" in options)) {
    options["trusted_key_servers"] = [{ server_name: "matrix.org" }];
    const why = "it names matrix.org, which is Synapse's default and not the platform's";
    changed.push({ option: "trusted_key_servers", verdict: "changed", why });
  }
  const database = databaseOf(take("database", "the tenant gets a database of the platform's"), directory);
  const mediaPath = take("media_store_path", "media are copied to where the platform keeps them");
  for (const option of ["tls_certificate_path", "tls_private_key_path"])
    take(option, "the gateway has the certificates (docs/gateway.md)");
  return {
    serverName,
    options,
    changed,
    secrets,
    database,
    mediaPath: typeof mediaPath === "string" ? absolute(mediaPath, directory) : undefined,
  };
}

type Take = (option: string, why: string) => unknown;

async function signingKeyOf(
  source: ImportSource,
  options: Mapping,
  take: Take,
  directory: string,
  serverName: string,
): Promise<string> {
  const inline = options["signing_key"];
  const why = "the key is kept with the tenant's keys";
  if (typeof inline === "string" && inline.trim() !== "") {
    take("signing_key", why);
    take("signing_key_path", why);
    return `${inline.trimEnd()}\n`;
  }
  const path = take("signing_key_path", why);
  // Where Synapse looks without it.
  return source.text(typeof path === "string" ? path : `${serverName}.signing.key`, directory);
}

/** What Synapse reads from files, as a tenant has it inline (docs/configuration.md, *In place of files*). */
async function filesInline(source: ImportSource, options: Mapping, take: Take, directory: string): Promise<void> {
  const inline: Mapping = {};
  const services = take("app_service_config_files", "their contents become synapse_shards.app_services");
  if (Array.isArray(services) && services.length > 0)
    inline["app_services"] = await Promise.all(
      services.map(async (path) => parsed(await source.text(String(path), directory), String(path))),
    );
  const authorities = take("federation_custom_ca_list", "their contents become synapse_shards.federation_authorities");
  if (Array.isArray(authorities) && authorities.length > 0)
    inline["federation_authorities"] = (
      await Promise.all(authorities.map((path) => source.text(String(path), directory)))
    ).join("\n");
  const templates = mapping(options["templates"])["custom_template_directory"];
  if (typeof templates === "string") {
    take("templates", "its files become synapse_shards.templates");
    const found = await source.texts(templates, directory);
    inline["templates"] = Object.fromEntries([...found].filter(([path]) => !path.includes("/")));
  }
  const consent = mapping(options["user_consent"])["template_dir"];
  if (typeof consent === "string") {
    const { template_dir: _directory, ...rest } = mapping(options["user_consent"]);
    take("user_consent", "the files of its template_dir become synapse_shards.consent_templates; the rest is taken");
    options["user_consent"] = rest;
    const pages: Record<string, Record<string, string>> = {};
    for (const [path, text] of await source.texts(consent, directory)) {
      const [, language, version] = /^([^/]+)\/([^/]+)\.html$/.exec(path) ?? [];
      if (language !== undefined && version !== undefined) (pages[language] ??= {})[version] = text;
    }
    inline["consent_templates"] = pages;
  }
  if (Object.keys(inline).length > 0) options["synapse_shards"] = { ...mapping(options["synapse_shards"]), ...inline };
}

function databaseOf(value: unknown, directory: string): Translated["database"] {
  const database = mapping(value);
  const args = mapping(database["args"]);
  const name = args["dbname"] ?? args["database"];
  if (database["name"] === "sqlite3" && typeof args["database"] === "string")
    return { sqlite: absolute(args["database"], directory) };
  if (database["name"] !== "psycopg2" || typeof name !== "string") return undefined;
  const text = (key: string, otherwise: string) => (args[key] === undefined ? otherwise : String(args[key]));
  return {
    login: {
      host: text("host", ""),
      port: Number(args["port"] ?? 5432),
      user: text("user", ""),
      password: text("password", ""),
      database: name,
      sslMode: text("sslmode", "prefer"),
    },
  };
}

/** @throws UserError InvalidConfig */
function parsed(text: string, file: string): Mapping {
  try {
    return readSynapseYaml(text);
  } catch (error) {
    if (!(error instanceof YamlProblem)) throw error;
    throw new UserError("InvalidConfig", `${file} cannot be read: ${error.message}`, { cause: error });
  }
}

function mapping(value: unknown): Mapping {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Mapping) : {};
}

function absolute(path: string, directory: string): string {
  return path.startsWith("/") ? path : `${directory}/${path}`;
}
