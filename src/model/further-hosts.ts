import { Document, isMap, isSeq } from "yaml";
import { parseBounded, YamlProblem } from "./bounded-yaml.ts";
import { UserError } from "./errors.ts";
import { hostOf } from "./names.ts";

/** Each is a claim that every controller and gateway keeps; as a shard has it (multi_synapse/options/hosts.py). */
export const MOST_HOSTS = 20;
/** Where they are in a tenant's configuration. Whether they may be the tenant's is said by the shard that checks it. */
export const FURTHER_HOSTS = ["synapse_shards", "hosts"] as const;

const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/;
/** All forms of an IPv4 address end in a number. */
const ADDRESS = /(^|\.)(\d+|0x[^.]*)$/;

/** What is wrong with a further name of a tenant, or undefined. */
export function furtherHostProblem(host: string): string | undefined {
  if (host.length <= 253 && NAME.test(host) && !ADDRESS.test(host)) return undefined;
  const text = host.length > 80 ? `${host.slice(0, 77)}…` : host;
  return `${JSON.stringify(text)} is not the name of a host in lower case, without a port`;
}

/**
 * Whether a host may lead to a tenant, by the rule that shards have (`_is_own` in multi_synapse/options/hosts.py).
 * @param allowed beside its own name and those below: names, or *.name for all below one
 */
export function isOwnHost(host: string, serverName: string, allowed: readonly string[]): boolean {
  const own = hostOf(serverName);
  if (host === own) return true;
  if (isAddress(host)) return false;
  return (
    (host.endsWith(`.${own}`) && !isAddress(own)) ||
    allowed.some((pattern) => (pattern.startsWith("*.") ? host.endsWith(pattern.slice(1)) : host === pattern))
  );
}

function isAddress(host: string): boolean {
  return host.startsWith("[") || ADDRESS.test(host);
}

/** @throws UserError InvalidInput where the configuration cannot be read */
export function furtherHosts(config: string): string[] {
  return listIn(documentOf(config));
}

/** The configuration with these instead; all else of the text stays. @throws UserError InvalidInput */
export function withFurtherHosts(config: string, hosts: readonly string[]): string {
  const problem = hosts.map(furtherHostProblem).find((found) => found !== undefined);
  if (problem !== undefined) throw new UserError("InvalidInput", problem);
  if (hosts.length > MOST_HOSTS)
    throw new UserError("InvalidInput", `a tenant has at most ${MOST_HOSTS} further hosts, these are ${hosts.length}`);
  const document = documentOf(config);
  const present = listIn(document);
  if (present.length === hosts.length && present.every((host, at) => host === hosts[at])) return config;
  const [ours] = FURTHER_HOSTS;
  if (hosts.length > 0) {
    if (!isMap(document.contents)) document.contents = document.createNode({}) as never;
    if (!isMap(document.get(ours))) document.set(ours, document.createNode({}));
    document.setIn(FURTHER_HOSTS, document.createNode(hosts));
  } else {
    document.deleteIn(FURTHER_HOSTS);
    const rest = document.get(ours);
    if (isMap(rest) && rest.items.length === 0) document.delete(ours);
    if (isMap(document.contents) && document.contents.items.length === 0) return "";
  }
  return document.toString({ lineWidth: 0 });
}

function documentOf(source: string): Document {
  try {
    return parseBounded(source).document ?? new Document({});
  } catch (error) {
    if (error instanceof YamlProblem) throw new UserError("InvalidInput", `the configuration: ${error.message}`);
    throw error;
  }
}

function listIn(document: Document): string[] {
  const list = isMap(document.contents) ? document.getIn(FURTHER_HOSTS) : undefined;
  if (list === undefined || list === null) return [];
  const hosts: unknown = isSeq(list) ? list.toJSON() : undefined;
  if (Array.isArray(hosts) && hosts.every((host) => typeof host === "string")) return hosts;
  throw new UserError("InvalidInput", `${FURTHER_HOSTS.join(".")} of the configuration is no list of names`);
}
