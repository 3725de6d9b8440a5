import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseSync } from "@swc/core";
import { ROOT } from "../../../src/model/project.ts";

/** Codes in the sources, each with the files that it is in. */
export type FoundCodes = Map<string, Set<string>>;

/** By the name of a function, a method or a class: which of its arguments are reasons or codes. */
type Positions = Map<string, Set<number>>;

/** Any node of the syntax tree: only the few fields that are named here are looked at. */
type Node = { type: string } & Record<string, unknown>;

/** One that is put together of a beginning and something else ends with a star. */
const CODE = /^[A-Z][A-Za-z]*[a-z]\*?$/;
const NAMES = new Set(["reason", "code"]);
const METHODS = new Set(["ClassMethod", "PrivateMethod"]);
const TABLE = /_REASONS$/;
const TYPE = /(?:Reason|ErrorCode|Refusal)$/;

/**
 * The codes that TypeScript sources make: what stands where a `reason` or a `code` is set, declared or passed on, and the members of types
 * and tables of reasons. A comparison makes none.
 *
 * @param sources file names and texts
 */
export function codesInTypeScript(sources: Iterable<[string, string]>): FoundCodes {
  const trees = [...sources].map(([file, text]) => [file, nodesOf(treeOf(text))] as const);
  const constants = new Map<string, string>();
  const everywhere: Positions = new Map();
  const perFile = new Map<string, Positions>();
  for (const [file, nodes] of trees) {
    const own: Positions = new Map();
    perFile.set(file, own);
    for (const node of nodes) {
      noteConstant(node, constants);
      noteCallable(node, own);
      // A method of the same name in another file may be another one's.
      if (!METHODS.has(node.type)) noteCallable(node, everywhere);
    }
  }
  const found: FoundCodes = new Map();
  for (const [file, nodes] of trees) {
    // What a file has of its own under a name is meant there, whatever others have.
    const positions = new Map([...everywhere, ...(perFile.get(file) ?? [])]);
    for (const node of nodes)
      for (const value of placesIn(node, positions))
        for (const text of textsOf(value, constants)) if (CODE.test(text)) note(found, text, file);
  }
  return found;
}

/** The codes that Python sources make: their constants, and what is given as a code, or as the argument after a status. */
export function codesInPython(sources: Iterable<[string, string]>): FoundCodes {
  const found: FoundCodes = new Map();
  const patterns = [
    /^[A-Z][A-Z_]+ = "([A-Z][A-Za-z]+)"$/gm,
    /\bRefused\(\s*\d{3},\s*"([A-Z][A-Za-z]+)"/g,
    /\bTenantError\(\s*"([A-Z][A-Za-z]+)"/g,
    /\b_error_body\(\s*"([A-Z][A-Za-z]+)"/g,
    /"code":\s*"([A-Z][A-Za-z]+)"/g,
  ];
  for (const [file, text] of sources)
    for (const pattern of patterns) for (const [, code = ""] of text.matchAll(pattern)) note(found, code, file);
  return found;
}

/** @param patterns of files below the project's root */
export function sourcesOf(...patterns: string[]): [string, string][] {
  return globSync(patterns, { cwd: ROOT }).map((file) => [file, readFileSync(join(ROOT, file), "utf8")]);
}

function note(found: FoundCodes, code: string, file: string): void {
  const files = found.get(code) ?? new Set();
  found.set(code, files.add(file));
}

function treeOf(text: string): Node {
  return parseSync(text, { syntax: "typescript", target: "es2024" }) as unknown as Node;
}

/** All of a tree, in no particular order. */
function nodesOf(tree: Node): Node[] {
  const found: Node[] = [];
  const left: unknown[] = [tree];
  while (left.length > 0) {
    const value = left.pop();
    if (typeof value !== "object" || value === null) continue;
    if ("type" in value && typeof value.type === "string") found.push(value as Node);
    for (const [key, child] of Object.entries(value)) if (key !== "span") left.push(child);
  }
  return found;
}

/** A constant is a string wherever it is used under its own name. */
function noteConstant(node: Node, constants: Map<string, string>): void {
  const { id, init } = node as { id?: Node; init?: Node };
  if (node.type === "VariableDeclarator" && id?.type === "Identifier" && init?.type === "StringLiteral")
    constants.set(String(id["value"]), String(init["value"]));
}

/** At which places a function, a method or a constructor takes a reason or a code. */
function noteCallable(node: Node, positions: Positions): void {
  for (const [name, params] of callablesIn(node)) {
    params.forEach((param, at) => {
      if (!NAMES.has(nameOf(patternOf(param)))) return;
      const known = positions.get(name) ?? new Set();
      positions.set(name, known.add(at));
    });
  }
}

function* callablesIn(node: Node): Generator<[string, Node[]]> {
  const { identifier, body, key, id, init } = node as Record<string, Node | undefined>;
  const fn = node["function"] as { params: Node[] } | undefined;
  if (node.type === "FunctionDeclaration" && identifier) yield [nameOf(identifier), node["params"] as Node[]];
  if (METHODS.has(node.type) && key && fn) yield [nameOf(key), fn.params];
  if (node.type === "VariableDeclarator" && id && init?.type === "ArrowFunctionExpression")
    yield [nameOf(id), init["params"] as Node[]];
  if (node.type !== "ClassDeclaration" || !identifier) return;
  for (const member of body as unknown as Node[])
    if (member.type === "Constructor") yield [nameOf(identifier), member["params"] as Node[]];
}

/** The expressions and types of a node that are reasons or codes. */
function* placesIn(node: Node, positions: Positions): Generator {
  const { key, value, left, right, id, init, typeAnnotation } = node as Record<string, Node | undefined>;
  switch (node.type) {
    case "KeyValueProperty":
      if (key && NAMES.has(nameOf(key))) yield value;
      break;
    case "TsPropertySignature":
    case "ClassProperty":
      if (key && NAMES.has(nameOf(key))) yield typeAnnotation;
      break;
    case "AssignmentExpression":
      if (left?.type === "MemberExpression" && NAMES.has(nameOf(left["property"] as Node))) yield right;
      break;
    case "VariableDeclarator":
      if (id && NAMES.has(nameOf(id))) yield init;
      if (id && TABLE.test(nameOf(id))) yield* membersOf(init);
      break;
    case "TsTypeAliasDeclaration":
      if (id && TYPE.test(nameOf(id))) yield typeAnnotation;
      break;
    case "Parameter":
    case "AssignmentPattern":
      if (left && NAMES.has(nameOf(left))) yield right;
      break;
    case "CallExpression":
    case "NewExpression": {
      const callee = node["callee"] as Node;
      const at = positions.get(nameOf(callee.type === "MemberExpression" ? (callee["property"] as Node) : callee));
      for (const position of at ?? []) yield (node["arguments"] as { expression: Node }[])[position]?.expression;
    }
  }
}

/** The elements of a list, the keys of an object; through `as const`. */
function membersOf(node: Node | undefined): unknown[] {
  if (node?.type === "TsConstAssertion" || node?.type === "TsAsExpression")
    return membersOf(node["expression"] as Node);
  if (node?.type === "ArrayExpression")
    return (node["elements"] as { expression: Node }[]).map(({ expression }) => expression);
  if (node?.type !== "ObjectExpression") return [];
  return (node["properties"] as Node[]).flatMap(({ key }) =>
    key ? [{ type: "StringLiteral", value: nameOf(key as Node) }] : [],
  );
}

/** What an expression or a type can be, as far as it is written there. */
function textsOf(value: unknown, constants: Map<string, string>): string[] {
  if (typeof value !== "object" || value === null) return [];
  const node = value as Node;
  const all = (...children: unknown[]) => children.flatMap((child) => textsOf(child, constants));
  switch (node.type) {
    case "StringLiteral":
      return [String(node["value"])];
    case "Identifier":
      return [constants.get(String(node["value"])) ?? ""];
    case "TemplateLiteral":
      return [`${beginningOf(node)}*`];
    case "ConditionalExpression":
      return all(node["consequent"], node["alternate"]);
    case "BinaryExpression":
      return ["??", "||", "&&"].includes(String(node["operator"])) ? all(node["left"], node["right"]) : [];
    case "ParenthesisExpression":
    case "TsConstAssertion":
    case "TsAsExpression":
    case "TsSatisfiesExpression":
      return all(node["expression"]);
    case "TsTypeAnnotation":
      return all(node["typeAnnotation"]);
    case "TsLiteralType":
      return all(node["literal"]);
    case "TsUnionType":
      return all(...(node["types"] as Node[]));
    default:
      return [];
  }
}

function beginningOf(template: Node): string {
  const [first] = template["quasis"] as { cooked?: string }[];
  return first?.cooked ?? "";
}

function patternOf(param: Node): Node {
  if (param.type === "Parameter") return patternOf(param["pat"] as Node);
  return param.type === "AssignmentPattern" ? patternOf(param["left"] as Node) : param;
}

/** Of an identifier, a key, or a private name. */
function nameOf(node: Node): string {
  return typeof node["value"] === "string" ? node["value"] : "";
}
