import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { expect, test } from "vitest";

const ROOT = resolve(import.meta.dirname, "../..");
const ELSEWHERE = new Set(["node_modules", "data", ".git"]);
const PAGES = globSync("**/*.md", { cwd: ROOT, exclude: (name) => ELSEWHERE.has(name) });

function withoutCode(page: string): string {
  return readFileSync(join(ROOT, page), "utf8").replaceAll(/^```[\s\S]*?^```/gm, "");
}

test("every relative link of every page leads to something that is there", () => {
  expect(PAGES).toContain("README.md");
  const broken = PAGES.flatMap((page) =>
    [...withoutCode(page).matchAll(/\]\(([^)\s#]+)(#[^)\s]*)?\)/g)]
      .map(([, target = ""]) => target)
      .filter((target) => !/^[a-z]+:/.test(target) && !existsSync(resolve(ROOT, dirname(page), target)))
      .map((target) => `${page}: ${target}`),
  );
  expect(broken).toEqual([]);
});

test("every path of a source, a test or a page that the documentation names is there", () => {
  const named = /`((?:src|tests|docs|bench|bin|soak|multi_synapse|charts|images)\/[\w./-]*)`/g;
  const broken = PAGES.flatMap((page) =>
    [...withoutCode(page).matchAll(named)]
      .map(([, path = ""]) => path)
      // Not of a placeholder, such as `bench/PART.ts`.
      .filter((path) => !/\b(PART|NAME|RELEASE)\b/.test(path) && !existsSync(join(ROOT, path)))
      .map((path) => `${page}: ${path}`),
  );
  expect(broken).toEqual([]);
});
