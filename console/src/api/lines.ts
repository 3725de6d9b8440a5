import { failureOf } from "./client.ts";

/** The lines of an answer, as they come. @throws ApiFailure */
export async function* linesOf(path: string, signal?: AbortSignal): AsyncGenerator<string> {
  const response = await fetch(path, { signal });
  if (!response.ok || !response.body) throw failureOf(response.status, await response.json().catch(() => undefined));
  let rest = "";
  const text = response.body.pipeThrough(new TextDecoderStream());
  for await (const chunk of chunksOf(text)) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
  if (rest !== "") yield rest;
}

/** Not every browser has streams that can be iterated over. */
async function* chunksOf(stream: ReadableStream<string>): AsyncGenerator<string> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    void reader.cancel().catch(() => {});
  }
}

export async function jsonLinesOf<T>(path: string, signal?: AbortSignal): Promise<T[]> {
  const items: T[] = [];
  for await (const line of linesOf(path, signal)) if (line !== "") items.push(JSON.parse(line) as T);
  return items;
}
