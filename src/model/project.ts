import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** The directory of the checkout, the package or the image: what has `package.json`, `src` and `multi_synapse`. */
export const ROOT = resolve(import.meta.dirname, "../..");

/** This project's own version. */
export const VERSION: string = (JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string })
  .version;
