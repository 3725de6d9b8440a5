import { isMap, isNode, isScalar, isSeq, parseDocument, Scalar, type Document, type YAMLMap, type YAMLSeq } from "yaml";
import { UserError } from "../../../model/errors.ts";
import { APP_SERVICES } from "../../../model/app-service.ts";
import { FURTHER_HOSTS } from "../../../model/further-hosts.ts";

/** A value, or a further part of homeserver.yaml, that is in a Secret of its own. */
export interface ConfigPart {
  /** A JSON pointer such as `/database/args/password`; absent: top-level options, which those of homeserver.yaml replace. */
  path?: string;
  /** It is the registration file of an application service, which joins those that homeserver.yaml has inline. */
  isAppService?: true;
  content: string;
  /** Where it is from, for messages: `the key KEY of the Secret NAMESPACE/NAME`. */
  from: string;
}

/**
 * A tenant's homeserver.yaml with what is kept in other Secrets. Read and written as YAML 1.1, as Synapse reads it, so that no value
 * changes its meaning on the way.
 * @param hosts further names that lead to it, beside those that homeserver.yaml has
 * @throws UserError InvalidConfig naming the Secret whose content does not fit
 */
export function composeConfig(text: string, parts: readonly ConfigPart[], hosts: readonly string[] = []): string {
  if (parts.length === 0 && hosts.length === 0) return text;
  const config = mappingOf(text, "homeserver.yaml");
  // The last part first: of two that have an option, the later one counts.
  for (const part of parts.toReversed()) if (part.path === undefined && !part.isAppService) addOptions(config, part);
  for (const part of parts) if (part.isAppService) addAppService(config, part);
  for (const part of parts) if (part.path !== undefined) setValue(config, part.path, part);
  addHosts(config, hosts);
  return config.toString({ lineWidth: 0 });
}

type Mapping = Document<YAMLMap>;

function mappingOf(text: string, what: string): Mapping {
  const document = parseDocument(text, { version: "1.1", uniqueKeys: false });
  const problem = document.errors[0];
  if (problem) throw new UserError("InvalidConfig", `${what} is not YAML: ${problem.message.split("\n")[0]}`);
  if (document.contents === null) document.contents = document.createNode({}) as never;
  if (!isMap(document.contents))
    throw new UserError("InvalidConfig", `${what} is not a YAML mapping of options to values`);
  return document as unknown as Mapping;
}

/** Adds top-level options that homeserver.yaml does not have; modules of both are loaded. */
function addOptions(config: Mapping, { content, from }: ConfigPart): void {
  const more = mappingOf(content, from);
  for (const { key, value } of more.contents?.items ?? []) {
    const name = isScalar(key) ? key.value : key;
    const present = config.get(name, true);
    if (present === undefined) config.set(name, value);
    else if (name === "modules" && isSeq(present) && isSeq(value)) present.items.unshift(...value.items);
  }
}

function addAppService(config: Mapping, { content, from }: ConfigPart): void {
  const registration = mappingOf(content, from).contents;
  const present = config.getIn(APP_SERVICES);
  if (isSeq(present)) present.add(registration);
  else if (present === undefined || present === null) put(config, APP_SERVICES, [registration]);
  else throw noPlace(from, APP_SERVICES.join("."));
}

function put(config: Mapping, [first, second]: readonly [string, string], list: readonly unknown[]): void {
  if (!isMap(config.get(first))) config.set(first, config.createNode({}));
  const sequence = config.createNode([]) as YAMLSeq;
  for (const item of list) sequence.add(isNode(item) ? item : config.createNode(item));
  config.setIn([first, second], sequence);
}

function noPlace(from: string, path: string): UserError {
  const message = `${from} is to be the option ${path}, and there is no such place in homeserver.yaml`;
  return new UserError("InvalidConfig", message);
}

/** What is no list there is left for the shard to refuse. */
function addHosts(config: Mapping, hosts: readonly string[]): void {
  if (hosts.length === 0) return;
  const present = config.getIn(FURTHER_HOSTS);
  if (isSeq(present)) for (const host of hosts) present.add(config.createNode(host));
  else if (present === undefined || present === null) put(config, FURTHER_HOSTS, hosts);
}

/** Sets a text, as quoted as need be to stay one. */
function setValue(config: Mapping, path: string, { content, from }: ConfigPart): void {
  const keys = path
    .split("/")
    .slice(1)
    .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"))
    .map((key) => (/^(0|[1-9]\d*)$/.test(key) ? Number(key) : key));
  const value = new Scalar(content);
  value.type = Scalar.QUOTE_DOUBLE;
  try {
    // What is missing on the way becomes a mapping; the library makes lists of pairs (!!omap) of it.
    for (let depth = 1; depth < keys.length; depth += 1)
      if (config.getIn(keys.slice(0, depth), true) === undefined)
        config.setIn(keys.slice(0, depth), config.createNode({}));
    config.setIn(keys, value);
  } catch {
    throw noPlace(from, path);
  }
}
