import { isAlias, isMap, isScalar, isSeq, Scalar, type ParsedNode, type YAMLMap, type YAMLSeq } from "yaml";
import { parseBounded, YAML_BOUNDS, YamlProblem, type BoundedYaml } from "./bounded-yaml.ts";

/**
 * Reads YAML as Synapse does: PyYAML's YAML 1.1, with its merge keys, numbers and booleans. What it reads otherwise, or what is not known to
 * be read alike, is refused; a differential test against PyYAML holds it to that (tests/model/synapse-yaml.test.ts).
 * @returns a mapping without a prototype; keys that are no strings begin with a NUL @throws YamlProblem
 */
export function readSynapseYaml(text: string): Record<string, unknown> {
  const parsed = parseBounded(text, { version: "1.1", schema: "failsafe" });
  const content = parsed.document?.contents;
  if (!content) return Object.create(null) as Record<string, unknown>;
  const value = new Reader(parsed).read(content, 1);
  if (value === null) return Object.create(null) as Record<string, unknown>;
  if (typeof value === "object" && !Array.isArray(value)) return value as Record<string, unknown>;
  const kind = Array.isArray(value) ? "a list" : "a single value";
  throw new YamlProblem(parsed.place(content.range[0]), `${kind}, where a mapping of options to values is expected`);
}

const BOOLEAN = /^(?:yes|Yes|YES|true|True|TRUE|on|On|ON|(no|No|NO|false|False|FALSE|off|Off|OFF))$/;
const NULL = /^(?:~|null|Null|NULL|)$/;
const INTEGER = /^[-+]?(?:0b[01_]+|0[0-7_]+|(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+|[1-9][0-9_]*(?::[0-5]?[0-9])+)$/;
const FLOAT =
  /^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/;
const TIMESTAMP =
  /^(?:\d{4}-\d\d-\d\d|\d{4}-\d\d?-\d\d?(?:[Tt]|[ \t]+)\d\d?:\d\d:\d\d(?:\.\d*)?(?:[ \t]*(?:Z|[-+]\d\d?(?::\d\d)?))?)$/;
const LONGEST_NUMBER = 100;
const PREFIX = "tag:yaml.org,2002:";

/** A key and its value, as it is in a mapping once merge keys are resolved. */
type Entry = [key: string, value: unknown];

class Reader {
  readonly #parsed: BoundedYaml;
  /** What an anchor stands for, and how many nodes that is. Undefined while it is being read. */
  readonly #anchors = new Map<string, { value: unknown; nodes: number } | undefined>();
  /** Mappings that have a key twice. */
  readonly #repetitive = new WeakSet<object>();
  #nodes = 0;

  constructor(parsed: BoundedYaml) {
    this.#parsed = parsed;
  }

  read(node: ParsedNode, depth: number): unknown {
    this.#count(node, 1);
    if (isAlias(node)) return this.#alias(node);
    const { anchor } = node;
    const before = this.#nodes;
    // A name that is given twice means the later one from then on; not inside itself.
    if (anchor !== undefined) {
      if (this.#anchors.has(anchor)) throw this.#wrong(node, "the anchor is given twice");
      this.#anchors.set(anchor, undefined);
    }
    const value = this.#content(node, depth);
    if (anchor !== undefined) this.#anchors.set(anchor, { value, nodes: this.#nodes - before + 1 });
    return value;
  }

  #alias(node: ParsedNode & { source: string }): unknown {
    if (!this.#anchors.has(node.source)) throw this.#wrong(node, "an alias of an anchor that is not above it");
    const found = this.#anchors.get(node.source);
    if (!found) throw this.#wrong(node, "an alias inside its own anchor");
    this.#count(node, found.nodes - 1);
    return found.value;
  }

  #content(node: ParsedNode, depth: number): unknown {
    if (depth > YAML_BOUNDS.depth) throw this.#wrong(node, `it is nested deeper than ${YAML_BOUNDS.depth} levels`);
    if (isScalar(node)) return this.#scalar(node);
    if (isSeq(node)) return this.#list(node, depth);
    if (isMap(node)) return this.#mapping(node, depth);
    throw this.#wrong(node, "neither a value, a list nor a mapping");
  }

  #list(node: YAMLSeq.Parsed, depth: number): unknown[] {
    this.#refuseTag(node, "seq");
    return node.items.map((item) => this.read(item, depth + 1));
  }

  #mapping(node: YAMLMap.Parsed, depth: number): Record<string, unknown> {
    this.#refuseTag(node, "map");
    const merged = new Map<string, unknown>();
    const own: Entry[] = [];
    for (const { key, value } of node.items) {
      const target = value === null ? null : () => this.read(value, depth + 1);
      if (isMergeKey(key)) this.#merge(node, target?.() ?? null, merged);
      else own.push([this.#key(key, depth), target?.() ?? null]);
    }
    const mapping = Object.create(null) as Record<string, unknown>;
    // What is merged comes first, wherever it stands, so that a mapping's own keys win; of equal keys the last counts.
    for (const [key, value] of [...merged, ...own]) mapping[key] = value;
    if (new Set(own.map(([key]) => key)).size < own.length) this.#repetitive.add(mapping);
    return mapping;
  }

  /** What `<<` brings in. Which of two equal keys counts depends on PyYAML's version, so there must be one. */
  #merge(node: ParsedNode, value: unknown, merged: Map<string, unknown>): void {
    for (const source of (Array.isArray(value) ? value : [value]) as unknown[]) {
      if (typeof source !== "object" || source === null || Array.isArray(source))
        throw this.#wrong(node, "a merge key (<<) takes a mapping or a list of mappings");
      const entries = Object.entries(source);
      this.#count(node, entries.length);
      for (const [key, item] of entries) {
        if (this.#repetitive.has(source) || (merged.has(key) && merged.get(key) !== item))
          throw this.#wrong(node, "merge keys (<<) bring in a key twice");
        merged.set(key, item);
      }
    }
  }

  #key(node: ParsedNode, depth: number): string {
    // `=` is a string as a key, and no value at all.
    if (isScalar(node) && node.type === Scalar.PLAIN && node.source === "=" && node.tag === undefined) return "=";
    const key = this.read(node, depth + 1);
    if (typeof key === "string") return key;
    if (typeof key === "object" && key !== null) throw this.#wrong(node, "a list or mapping as a key");
    if (typeof key === "number" && !Number.isInteger(key)) throw this.#wrong(node, "a fraction as a key");
    // Python takes 1, 1.0 and true for one key.
    return `\0${typeof key === "boolean" ? Number(key) : String(key)}`;
  }

  #scalar(node: Scalar.Parsed): unknown {
    const { tag, type } = node;
    const text = String(node.value);
    if (tag === undefined) return type === Scalar.PLAIN ? this.#plain(node, text) : text;
    switch (tag) {
      case `${PREFIX}str`:
        return text;
      case `${PREFIX}null`:
        return null;
      case `${PREFIX}int`:
        if (text.length > LONGEST_NUMBER || !INTEGER.test(text)) throw this.#wrong(node, "not a whole number");
        return this.#integer(node, text);
      default:
        throw this.#wrong(node, "a tag that is not !!str, !!int or !!null");
    }
  }

  #plain(node: ParsedNode, text: string): unknown {
    if (text.length > LONGEST_NUMBER) return this.#long(node, text);
    const boolean = BOOLEAN.exec(text);
    if (boolean) return boolean[1] === undefined;
    if (FLOAT.test(text)) return floatOf(text);
    if (INTEGER.test(text)) return this.#integer(node, text);
    if (NULL.test(text)) return null;
    if (text === "<<" || text === "=") throw this.#wrong(node, `${text} is no value; quote it`);
    if (TIMESTAMP.test(text)) throw this.#wrong(node, "a date, which no option takes; quote it");
    return text;
  }

  /** Digits are turned into a number in more than linear time. */
  #long(node: ParsedNode, text: string): string {
    if (/^[-+0-9.][0-9a-fA-Fx_:.+-]*$/.test(text)) throw this.#wrong(node, "a number with too many digits; quote it");
    return text;
  }

  #integer(node: ParsedNode, text: string): number | bigint {
    try {
      const value = integerOf(text);
      return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
    } catch {
      throw this.#wrong(node, "not a whole number");
    }
  }

  #refuseTag(node: ParsedNode, own: "seq" | "map"): void {
    if (node.tag !== undefined && node.tag !== `${PREFIX}${own}`) throw this.#wrong(node, "a tag that is not known");
  }

  #count(node: ParsedNode, nodes: number): void {
    this.#nodes += nodes;
    if (this.#nodes > YAML_BOUNDS.nodes)
      throw this.#wrong(node, `more than ${YAML_BOUNDS.nodes} values, aliases counted as what they stand for`);
  }

  #wrong(node: ParsedNode, why: string): YamlProblem {
    return new YamlProblem(this.#parsed.place(node.range[0]), why);
  }
}

function isMergeKey(key: unknown): boolean {
  return isScalar(key) && key.type === Scalar.PLAIN && key.source === "<<" && key.tag === undefined;
}

/** @throws SyntaxError where there is no digit, as in `0x_` */
function integerOf(text: string): bigint {
  const sign = text.startsWith("-") ? -1n : 1n;
  const digits = text.replaceAll("_", "").replace(/^[-+]/, "");
  if (digits === "" || /^0[bx]$/.test(digits)) throw new SyntaxError("no digits");
  if (digits.includes(":")) return sign * sexagesimal(digits.split(":").map(BigInt));
  if (/^0[0-7]+$/.test(digits)) return sign * BigInt(`0o${digits.slice(1)}`);
  return sign * BigInt(digits);
}

function sexagesimal(parts: bigint[]): bigint {
  return parts.reduce((sum, part) => sum * 60n + part, 0n);
}

function floatOf(text: string): number {
  const sign = text.startsWith("-") ? -1 : 1;
  const digits = text.replaceAll("_", "").replace(/^[-+]/, "").toLowerCase();
  if (digits === ".inf") return sign * Number.POSITIVE_INFINITY;
  if (digits === ".nan") return Number.NaN;
  return sign * digits.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
}
