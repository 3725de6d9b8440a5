import { isIP } from "node:net";
import { isMap, Scalar, YAMLMap } from "yaml";
import { YamlProblem } from "./bounded-yaml.ts";
import { copiedMapping, editable, textReadAs } from "./config-editing.ts";
import { UserError } from "./errors.ts";
import { isMapping } from "./mapping.ts";
import { isAuthenticationAddress } from "./routes.ts";
import { readSynapseYaml } from "./synapse-yaml.ts";

/**
 * Of a tenant whose accounts an authentication service keeps (Matrix Authentication Service). Its URL is the operator's
 * to give, as gateways send requests there: a tenant's own configuration decides nothing of it.
 */

/** Where it is in a tenant's configuration. */
const OPTION = "matrix_authentication_service";

/** What is wrong with its URL, or undefined. Gateways keep the paths of requests. */
export function authenticationUrlProblem(text: string): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain = url?.username === "" && url.password === "" && url.pathname === "/" && url.search + url.hash === "";
  const isHttp = url?.protocol === "http:" || url?.protocol === "https:";
  if (isHttp && isPlain && text.length <= 255 && isAuthenticationAddress(authenticationAddress(text))) return undefined;
  return (
    "an authentication service is at a URL such as http://127.0.0.1:8090 or https://account.example, without a path; " +
    "its host is an address or a name of letters, digits, dots, hyphens and underscores, its port 1 to 65535"
  );
}

/** For gateways: `host:port`, or `https://host:port`. */
export function authenticationAddress(text: string): string {
  return `${new URL(text).protocol === "https:" ? "https://" : ""}${hostAndPort(text)}`;
}

function hostAndPort(text: string): string {
  const { protocol, hostname, port } = new URL(text);
  return `${hostname}:${port || (protocol === "https:" ? "443" : "80")}`;
}

/** What its tenant may connect to beside what the policy says: that address, and no name, which may lead elsewhere tomorrow. */
export function authenticationDestinations(text: string | undefined): string[] {
  if (text === undefined) return [];
  const { hostname } = new URL(text);
  return isIP(hostname.replace(/^\[|\]$/g, "")) === 0 ? [] : [hostAndPort(text)];
}

/** The secret that a configuration shares with the service; undefined: none. @throws UserError InvalidInput where it cannot be read */
export function authenticationSecret(config: string): string | undefined {
  const option = asRead(() => readSynapseYaml(config))[OPTION];
  const secret = isMapping(option) ? option["secret"] : undefined;
  return typeof secret === "string" && secret !== "" ? secret : undefined;
}

/**
 * The configuration of a homeserver whose accounts the service keeps; all else of the text stays. Passwords are the
 * service's, and clients may be signed in by a QR code, as the service has the device grant that this takes.
 * @throws UserError InvalidInput where it cannot be read, or written so that all else would not stay
 */
export function withAuthenticationService(config: string, { url, secret }: { url: string; secret: string }): string {
  const wanted = asRead(() => readSynapseYaml(config));
  const document = asRead(() => editable(config));
  if (!isMap(document.contents)) document.contents = new YAMLMap() as never;
  const set = (path: readonly [string, string], value: string | boolean) => {
    const [option, key] = path;
    const before = isMapping(wanted[option]) ? wanted[option] : {};
    if (before[key] === value) return;
    wanted[option] = copiedMapping({ ...before, [key]: value });
    if (!isMap(document.get(option))) document.set(option, new YAMLMap());
    document.setIn(path, scalarOf(value));
  };
  set([OPTION, "enabled"], true);
  set([OPTION, "endpoint"], url);
  set([OPTION, "secret"], secret);
  set(["password_config", "enabled"], false);
  set(["experimental_features", "msc4108_enabled"], true);
  const text = textReadAs(document, wanted, { lineWidth: 0 });
  if (text !== undefined) return text;
  throw new UserError(
    "InvalidInput",
    `the configuration: ${OPTION}, password_config and experimental_features cannot be set as it is written: write these out without aliases and merge keys`,
  );
}

/** The section of the service's own configuration that is about the homeserver. @param endpoint the homeserver's, as the service reaches it */
export function sectionFor(serverName: string, endpoint: string, secret: string): object {
  return { matrix: { kind: "synapse_modern", homeserver: serverName, endpoint, secret } };
}

function scalarOf(value: string | boolean): Scalar {
  const scalar = new Scalar(String(value));
  scalar.type = typeof value === "string" ? Scalar.QUOTE_DOUBLE : Scalar.PLAIN;
  return scalar;
}

function asRead<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof YamlProblem) throw new UserError("InvalidInput", `the configuration: ${error.message}`);
    throw error;
  }
}
