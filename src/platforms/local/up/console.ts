import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { messageOf } from "../../../model/errors.ts";
import { ROOT } from "../../../model/project.ts";

/**
 * Builds the web console in a checkout, once, and again after its sources have changed: seconds, where an artefact in the repository would be
 * out of date with each change. A package has it built. Never fails: everything else runs without it.
 * @returns what went wrong, in a sentence
 */
export async function prepareConsole(): Promise<string | undefined> {
  const builder = join(ROOT, "console/build.ts");
  if (!existsSync(builder)) return undefined;
  try {
    const { ensureConsole } = (await import(pathToFileURL(builder).href)) as { ensureConsole(): Promise<void> };
    await ensureConsole();
    return undefined;
  } catch (error) {
    return `The console cannot be built, and is not served, or as it was before: ${messageOf(error)}`;
  }
}
