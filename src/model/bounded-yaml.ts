import { Composer, Lexer, LineCounter, Parser, type Document, type DocumentOptions, type ErrorCode } from "yaml";

/** Bounds on YAML from outside; the same as the shard's (docs/control-api.md, *Bounds of a configuration*). */
export const YAML_BOUNDS = {
  /** UTF-16 units here, bytes in a shard. A homeserver.yaml with every option is 150 KiB of comments; CRDs allow as much. */
  size: 256 * 1024,
  /** Real configurations have up to 8 levels. */
  depth: 32,
  /** Values, aliases counted as what they stand for. A tenant with 500 application services has some 10,000. */
  nodes: 50_000,
} as const;

/** What is wrong with a YAML text, and where. Never quotes it: there may be passwords in it. */
export class YamlProblem extends Error {
  constructor(where: string, why: string) {
    super(where === "" ? why : `${where}: ${why}`);
    this.name = "YamlProblem";
  }
}

export interface BoundedYaml {
  /** Undefined where the text is empty, or holds comments only. */
  document: Document.Parsed | undefined;
  /** `line 3, column 5`, for an offset in the text. */
  place(offset: number): string;
}

/**
 * Parses one document in time linear in its size: refused before anything is built where it is too large or nested too deeply.
 * @throws YamlProblem
 */
export function parseBounded(text: string, options: DocumentOptions & { schema?: "failsafe" } = {}): BoundedYaml {
  const { documents, place } = parseBoundedDocuments(text, YAML_BOUNDS.size, options);
  const [document, second] = documents;
  if (second) throw new YamlProblem(place(second.range[0]), "a second document begins here");
  return { document, place };
}

/** The same for several documents. @param largest in characters @throws YamlProblem */
export function parseBoundedDocuments(
  text: string,
  largest: number,
  options: DocumentOptions & { schema?: "failsafe" } = {},
): { documents: Document.Parsed[]; place(offset: number): string } {
  if (text.length > largest)
    throw new YamlProblem("", `it is larger than ${largest / 1024} KiB (${text.length} characters)`);
  const lines = new LineCounter();
  const place = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `line ${line}, column ${col}`;
  };
  const composer = new Composer({ uniqueKeys: false, prettyErrors: false, ...options });
  // At the first mistake: collecting all of them would take seconds where a text is nothing else.
  let first: YamlProblem | undefined;
  const onError: ComposeErrorHandler = (source, code, _message, isWarning) => {
    if (isWarning) return;
    const offset = typeof source === "number" ? source : Array.isArray(source) ? source[0] : source.offset;
    // The library turns what is thrown inside a node into an error of its own, and reports that.
    first ??= new YamlProblem(place(offset), wordsOf(code));
    throw first;
  };
  Object.assign(composer, { onError });
  const documents: Document.Parsed[] = [];
  for (const document of composer.compose(tokensOf(text, lines, place), false, text.length)) {
    const error = document.errors[0];
    if (error) throw new YamlProblem(place(error.pos[0]), wordsOf(error.code));
    documents.push(document);
  }
  return { documents, place };
}

function* tokensOf(text: string, lines: LineCounter, place: (offset: number) => string) {
  const parser = new Parser(lines.addNewLine);
  lines.addNewLine(0);
  for (const lexeme of new Lexer().lex(text)) {
    for (const token of parser.next(lexeme)) {
      if (token.type === "error") throw new YamlProblem(place(token.offset), wordsOf("UNEXPECTED_TOKEN"));
      yield token;
    }
    if (parser.stack.length > YAML_BOUNDS.depth)
      throw new YamlProblem(place(parser.offset), `it is nested deeper than ${YAML_BOUNDS.depth} levels`);
  }
  yield* parser.end();
}

type ComposeErrorHandler = (
  source: number | [number, number] | { offset: number },
  code: ErrorCode,
  message: string,
  isWarning?: boolean,
) => void;

/** The library's own messages quote the text. */
function wordsOf(code: ErrorCode): string {
  return `not YAML (${code.toLowerCase().replaceAll("_", " ")})`;
}
