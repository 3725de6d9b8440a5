import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { basename, join } from "node:path";
import { makeDirectory } from "../files.ts";

/** Shards that still run may import from theirs. */
const COPIES_KEPT = 3;

/**
 * A copy of the package `multi_synapse` that every user can read: the checkout may be anywhere, and its files closed to others.
 * @returns the directory that has the package
 */
export function copyRuntime(root: string, into: string): string {
  const source = join(root, "multi_synapse");
  const directory = join(into, fingerprint(source));
  makeDirectory(into, 0o755);
  if (!existsSync(directory)) {
    const draft = `${directory}.new`;
    rmSync(draft, { recursive: true, force: true });
    mkdirSync(draft);
    cpSync(source, join(draft, "multi_synapse"), { recursive: true, filter: belongs });
    openForAll(draft);
    renameSync(draft, directory);
  }
  const others = readdirSync(into).filter((name) => name !== basename(directory));
  const byAge = others.map((name) => join(into, name)).toSorted((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
  for (const old of byAge.slice(COPIES_KEPT - 1)) rmSync(old, { recursive: true, force: true });
  return directory;
}

function belongs(path: string): boolean {
  return !/(^|\/)(tests|__pycache__|\.\w+_cache)$/.test(path);
}

function fingerprint(source: string): string {
  const hash = createHash("sha256");
  const visit = (directory: string): void => {
    for (const entry of readdirSync(directory, { withFileTypes: true }).toSorted((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const path = join(directory, entry.name);
      if (!belongs(path)) continue;
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile()) hash.update(path.slice(source.length)).update("\0").update(readFileSync(path));
    }
  };
  visit(source);
  return hash.digest("hex").slice(0, 12);
}

function openForAll(path: string): void {
  const directory = statSync(path).isDirectory();
  chmodSync(path, directory ? 0o755 : 0o644);
  if (directory) for (const name of readdirSync(path)) openForAll(join(path, name));
}
