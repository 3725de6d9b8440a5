import { isMap, parseDocument } from "yaml";

/** Where and why a text is not a YAML mapping; what its settings mean is the API's to judge. */
export function overridesProblem(text: string): { line: number; column: number; words: string } | undefined {
  let document: ReturnType<typeof parseDocument>;
  try {
    document = parseDocument(text, { uniqueKeys: false });
  } catch {
    // The parser is as deep in itself as the text is nested.
    return { line: 1, column: 1, words: "not YAML that can be read: it is nested too deeply" };
  }
  const error = document.errors[0];
  if (error) {
    const [at] = error.linePos ?? [{ line: 1, col: 1 }];
    // The library's words go on with an excerpt of the text, which may hold secrets.
    const words = error.message.split("\n", 1)[0]?.replace(/ at line \d+, column \d+:?$/, "");
    return { line: at.line, column: at.col, words: `not YAML: ${words}` };
  }
  const { contents } = document;
  if (contents === null || isMap(contents)) return undefined;
  const before = text.slice(0, contents.range?.[0] ?? 0).split("\n");
  return {
    line: before.length,
    column: (before.at(-1)?.length ?? 0) + 1,
    words: "not a YAML mapping of settings to values",
  };
}
