import { expect, test } from "vitest";
import { untested } from "../../bin/newest.ts";

test.each([
  [["1.163.2", "1.157.2"], []],
  [["1.157.2", "1.164.0", "1.163.2"], ["1.164.0"]],
  [["1.163.2", "1.164.0rc2", "1.164.0rc1"], ["1.164.0rc2"]],
  [
    ["1.164.1", "1.165.0rc1", "1.163.2"],
    ["1.164.1", "1.165.0rc1"],
  ],
  [["1.164.0", "1.164.0rc3", "1.163.2"], ["1.164.0"]],
  [["1.163.10", "1.163.9"], ["1.163.10"]],
  [[], []],
])("of %j, %j were never tested after 1.163.2", (published, expected) => {
  expect(untested(published, "1.163.2")).toEqual(expected);
});
