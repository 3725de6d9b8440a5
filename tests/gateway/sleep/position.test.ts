import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isSamePosition, lastingPart } from "../../../src/gateway/sleep/position.ts";

describe("positions in streams", () => {
  it("are the same where only presence and typing differ", () => {
    expect(isSamePosition("s10_2_0_4_5_6", "s10_99_7_4_5_6")).toBe(true);
    expect(isSamePosition("m10~1.12~2.3_2_0_4|5_5_6", "m10~1.12~2.3_3_0_4|5_5_6")).toBe(true);
  });

  it("differ where any other stream does", () => {
    const keys = fc.array(fc.nat(99), { minLength: 4, maxLength: 16 });
    fc.assert(
      fc.property(keys, fc.nat(15), fc.integer({ min: 1, max: 9 }), (given, at, more) => {
        const index = at % given.length;
        const textOf = (numbers: number[]) => `s${numbers.join("_")}`;
        const other = given.map((key, i) => (i === index ? key + more : key));
        expect(isSamePosition(textOf(given), textOf(other))).toBe(index === 1 || index === 2);
      }),
    );
  });

  it("are the same as nothing where one has another form, or more streams", () => {
    expect(isSamePosition("s10_2_0_4", "s10_2_0_4_0")).toBe(false);
    for (const text of ["", "s10", "s10_2", "s10__0_4", "s10_2_0_4 5", "s10_2_0/4"]) {
      expect(lastingPart(text)).toBeUndefined();
      expect(isSamePosition(text, text)).toBe(false);
    }
  });
});
