import { isIP } from "node:net";
import { Document, isMap } from "yaml";
import { parseBounded, YamlProblem } from "./bounded-yaml.ts";
import { UserError } from "./errors.ts";

/**
 * Of a tenant whose accounts an authentication service keeps (Matrix Authentication Service). Its URL is the operator's
 * to give, as gateways send requests there: a tenant's own configuration decides nothing of it.
 */

/** Where it is in a tenant's configuration. */
const OPTION = "matrix_authentication_service";

/** What is wrong with its URL, or undefined. Gateways speak HTTP with it, and keep the paths. */
export function authenticationUrlProblem(text: string): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isPlain = url?.username === "" && url.password === "" && url.pathname === "/" && url.search + url.hash === "";
  if (url?.protocol === "http:" && isPlain && text.length <= 255) return undefined;
  return "an authentication service is at a URL such as http://127.0.0.1:8090, by http and without a path";
}

/** `host:port` for gateways. */
export function authenticationAddress(text: string): string {
  const { hostname, port } = new URL(text);
  return `${hostname}:${port || "80"}`;
}

/** What its tenant may connect to beside what the policy says: that address, and no name, which may lead elsewhere tomorrow. */
export function authenticationDestinations(text: string | undefined): string[] {
  if (text === undefined) return [];
  const { hostname } = new URL(text);
  return isIP(hostname.replace(/^\[|\]$/g, "")) === 0 ? [] : [authenticationAddress(text)];
}

/** The secret that a configuration shares with the service; undefined: none. @throws UserError InvalidInput where it cannot be read */
export function authenticationSecret(config: string): string | undefined {
  const document = documentOf(config);
  const secret = isMap(document.contents) ? document.getIn([OPTION, "secret"]) : undefined;
  return typeof secret === "string" && secret !== "" ? secret : undefined;
}

/**
 * The configuration of a homeserver whose accounts the service keeps; all else of the text stays. Passwords are the
 * service's, and clients may be signed in by a QR code, as the service has the device grant that this takes.
 * @throws UserError InvalidInput where it cannot be read
 */
export function withAuthenticationService(config: string, { url, secret }: { url: string; secret: string }): string {
  const document = documentOf(config);
  if (!isMap(document.contents)) document.contents = document.createNode({}) as never;
  const set = (path: readonly [string, string], value: unknown) => {
    if (!isMap(document.get(path[0]))) document.set(path[0], document.createNode({}));
    document.setIn(path, value);
  };
  set([OPTION, "enabled"], true);
  set([OPTION, "endpoint"], url);
  set([OPTION, "secret"], secret);
  set(["password_config", "enabled"], false);
  set(["experimental_features", "msc4108_enabled"], true);
  return document.toString({ lineWidth: 0 });
}

/** The section of the service's own configuration that is about the homeserver. @param endpoint the homeserver's, as the service reaches it */
export function sectionFor(serverName: string, endpoint: string, secret: string): object {
  return { matrix: { kind: "synapse_modern", homeserver: serverName, endpoint, secret } };
}

function documentOf(source: string): Document {
  try {
    return parseBounded(source).document ?? new Document({});
  } catch (error) {
    if (error instanceof YamlProblem) throw new UserError("InvalidInput", `the configuration: ${error.message}`);
    throw error;
  }
}
