import { isMap, isScalar, isSeq, parseDocument, Scalar, type Document, type YAMLMap } from "yaml";
import { UserError } from "../../../model/errors.ts";

/** A value, or a further part of homeserver.yaml, that is in a Secret of its own. */
export interface ConfigPart {
  /** A JSON pointer such as `/database/args/password`; absent: top-level options, which those of homeserver.yaml replace. */
  path?: string;
  content: string;
  /** Where it is from, for messages: `the key KEY of the Secret NAMESPACE/NAME`. */
  from: string;
}

/**
 * A tenant's homeserver.yaml with what is kept in other Secrets. Read and written as YAML 1.1, as Synapse reads it, so that no value
 * changes its meaning on the way.
 * @throws UserError InvalidConfig naming the Secret whose content does not fit
 */
export function composeConfig(text: string, parts: readonly ConfigPart[]): string {
  if (parts.length === 0) return text;
  const config = mappingOf(text, "homeserver.yaml");
  // The last part first: of two that have an option, the later one counts.
  for (const part of parts.toReversed()) if (part.path === undefined) addOptions(config, part);
  for (const part of parts) if (part.path !== undefined) setValue(config, part.path, part);
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
    config.setIn(keys, value);
  } catch {
    throw new UserError(
      "InvalidConfig",
      `${from} is to be the option ${path}, and there is no such place in homeserver.yaml`,
    );
  }
}
