// The linter of `.github/workflows`.
import { existsSync } from "node:fs";
import { ACTIONLINT, ensureGoTool, ownGo, pathOf } from "./go-tools.ts";

/** @returns the path of the program, or undefined if it is not there and Go is not either. @throws Error if the build fails */
export function ensureActionlint(): string | undefined {
  if (existsSync(pathOf(ACTIONLINT))) return pathOf(ACTIONLINT);
  const go = ownGo();
  return go === undefined ? undefined : ensureGoTool(ACTIONLINT, go);
}
