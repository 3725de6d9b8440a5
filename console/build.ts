/** Builds the console, where its sources have changed since. `npm run build` does, and so does `up`, before the controller serves it. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, globSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { brotliCompress } from "node:zlib";

const HERE = import.meta.dirname;
const BUILT = join(HERE, "dist");
const STAMP = ".built-from";
/** Whatever decides what comes out. */
const SOURCES = ["console/{src,public}/**/*.*", "console/*.{ts,html}", "docs/runbooks/*.md", "package-lock.json"];

/** @throws what the build said */
export async function ensureConsole(): Promise<void> {
  const sources = hashOfSources();
  // A package has what was built, and need not have what it was built from.
  if (sources === undefined || sources === stampOf(BUILT)) return;
  // A process of its own: what is built depends on NODE_ENV, which is the caller's, and for the caller.
  const env = { ...process.env, NODE_ENV: "production" };
  await promisify(execFile)(process.execPath, [import.meta.filename], { env });
}

async function buildConsole(sources: string): Promise<void> {
  // An image is built of it, and read there by somebody else; `up` keeps its own files to itself.
  process.umask(0o022);
  // Beside it, then in its place: a cluster that starts meanwhile finds the one or the other.
  const fresh = `${BUILT}.${process.pid}`;
  const { build } = await import("vite");
  try {
    await build({
      configFile: join(HERE, "vite.config.ts"),
      root: HERE,
      logLevel: "error",
      build: { outDir: fresh, emptyOutDir: true },
    });
    await compress(fresh);
    writeFileSync(join(fresh, STAMP), sources);
    const old = `${BUILT}.old.${process.pid}`;
    if (existsSync(BUILT)) renameSync(BUILT, old);
    try {
      renameSync(fresh, BUILT);
    } catch (error) {
      // Another start was quicker, and built the same.
      if (stampOf(BUILT) !== sources) throw error;
    }
    rmSync(old, { recursive: true, force: true });
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}

function hashOfSources(): string | undefined {
  const root = join(HERE, "..");
  const files = SOURCES.flatMap((pattern) => globSync(pattern, { cwd: root })).toSorted();
  // Types are not built in.
  const deciding = files.filter((file) => !file.endsWith(".gen.ts"));
  if (!deciding.includes(join("console", "src", "main.tsx"))) return undefined;
  const hash = createHash("sha256");
  for (const file of deciding) hash.update(`${file}\0`).update(readFileSync(join(root, file)));
  return hash.digest("hex");
}

function stampOf(directory: string): string | undefined {
  try {
    return readFileSync(join(directory, STAMP), "utf8");
  } catch {
    return undefined;
  }
}

async function compress(directory: string): Promise<void> {
  const files = globSync("**/*.{js,css,html,svg}", { cwd: directory });
  const compressed = promisify(brotliCompress);
  await Promise.all(
    files.map(async (file) => {
      const path = join(directory, file);
      writeFileSync(`${path}.br`, await compressed(readFileSync(path)));
    }),
  );
}

// Also where `bin/run.mjs` has imported it, which it does on Node 24.
if (import.meta.main || process.argv[1] === import.meta.filename) {
  process.env["NODE_ENV"] = "production";
  const sources = hashOfSources();
  if (sources !== undefined && sources !== stampOf(BUILT)) await buildConsole(sources);
}
