import { expect, it } from "vitest";
import { changedLabels, labelsProblem, matches, parseSelector } from "../../src/model/labels.ts";

const LABELS = { plan: "small", "billing.example/payer": "4711", trial: "" };

it.each([
  ["plan=small", true],
  ["plan==small", true],
  ["plan=large", false],
  ["plan!=large", true],
  // What is absent is unlike any value.
  ["region!=eu", true],
  ["trial", true],
  ["!trial", false],
  ["!region", true],
  ["trial=", true],
  ["plan=small, billing.example/payer=4711", true],
  ["plan=small,region=eu", false],
  // Not a label because every object has it.
  ["constructor", false],
])("of labels, the selector %s is %s", (selector, expected) => {
  expect(matches(parseSelector(selector), LABELS)).toBe(expected);
});

it.each([
  ["", /parts are KEY=VALUE/],
  ["plan=small,", /part "": parts are/],
  ["!plan=small", /part "!plan=small"/],
  ["plan=a=b", /"a=b" is no value of a label/],
  ["-plan", /"-plan" is no key of a label/],
  ["a/b/c", /"a\/b\/c" is no key/],
  ["x".repeat(2000), /at most 1000 characters/],
])("refuses the selector %s with what is wrong and what is allowed", (selector, message) => {
  expect(() => parseSelector(selector)).toThrow(message);
});

it("knows what labels are", () => {
  expect(labelsProblem(LABELS)).toBeUndefined();
  expect(labelsProblem({ "Not a key": "" })).toMatch(/no key of a label/);
  expect(labelsProblem({ plan: "not a value" })).toMatch(/no value of a label/);
  expect(labelsProblem(Object.fromEntries(Array.from({ length: 33 }, (_, n) => [`l${n}`, ""])))).toMatch(/at most 32/);
});

it("changes some of them", () => {
  expect(changedLabels(LABELS, { plan: "large", trial: null, gone: null })).toEqual({
    plan: "large",
    "billing.example/payer": "4711",
  });
  expect(changedLabels(undefined, { a: "b" })).toEqual({ a: "b" });
});
