import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";
import { quoted } from "../../src/model/shell.ts";

it.each(["plain/path-1.2", "with space", "it's", "$(reboot)", "a;b", "~user", "back\\slash", "*", ""])(
  "quotes %j so that a shell reads the same word",
  (word) => {
    expect(execFileSync("/bin/sh", ["-c", `printf %s ${quoted(word)}`], { encoding: "utf8" })).toBe(word);
  },
);

it("leaves words alone that need no quotes", () => {
  expect(quoted("/srv/synapse-shards/data")).toBe("/srv/synapse-shards/data");
});
