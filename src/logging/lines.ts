import { StringDecoder } from "node:string_decoder";

/**
 * Lines of a stream, each ended by a line feed alone. Node's readline also ends them at U+2028 and U+2029, which JSON has as they are: whoever writes
 * these into a value would cut the line of it in two.
 */
export async function* linesOf(stream: AsyncIterable<Buffer | string>): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + (typeof chunk === "string" ? chunk : decoder.write(chunk))).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) yield withoutReturn(line);
  }
  rest += decoder.end();
  if (rest !== "") yield withoutReturn(rest);
}

function withoutReturn(line: string): string {
  return line.endsWith("\r") ? line.slice(0, -1) : line;
}
