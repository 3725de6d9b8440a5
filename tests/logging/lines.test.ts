import { array, assert, asyncProperty, nat, string } from "fast-check";
import { expect, test } from "vitest";
import { linesOf } from "../../src/logging/lines.ts";

async function* pieces(bytes: Buffer, sizes: readonly number[]): AsyncGenerator<Buffer> {
  let at = 0;
  for (const size of sizes) yield bytes.subarray(at, (at += size));
  yield bytes.subarray(at);
}

test("lines end at line feeds alone, however they come in pieces, also in the middle of a letter", async () => {
  const line = string({ unit: "grapheme", maxLength: 8 }).filter((text) => !/[\n\r]/.test(text));
  await assert(
    asyncProperty(array(line, { minLength: 1 }), array(nat(9)), async (lines, sizes) => {
      const found: string[] = [];
      for await (const one of linesOf(pieces(Buffer.from(`${lines.join("\n")}\n`), sizes))) found.push(one);
      expect(found).toEqual(lines);
    }),
  );
});

test("a separator of Unicode's within a line is none, and the last line may have no end", async () => {
  const found: string[] = [];
  for await (const one of linesOf(pieces(Buffer.from("a\u2028b\r\n\u2029c"), []))) found.push(one);
  expect(found).toEqual(["a\u2028b", "\u2029c"]);
});
