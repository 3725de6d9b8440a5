import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { cacheDirectory } from "../../../src/platforms/local/toolchain/toolchain.ts";

export const run = promisify(execFile);

/** Where a program is, or undefined. */
export function onPath(program: string): string | undefined {
  const directories = (process.env["PATH"] ?? "").split(delimiter);
  return directories.map((directory) => join(directory, program)).find((file) => existsSync(file));
}

/**
 * `prometheus` or `promtool`: the machine's own, else those of Debian's package, which is unpacked into the cache and not
 * installed, as that would start a server. @returns undefined where there is neither; `skipped` then says why
 */
export async function prometheusTool(program: "prometheus" | "promtool"): Promise<string | undefined> {
  const found = onPath(program);
  if (found !== undefined) return found;
  const directory = join(cacheDirectory(), "prometheus");
  if (!existsSync(directory)) await unpack(directory).catch(() => {});
  const file = join(directory, "usr/bin", program);
  return existsSync(file) ? file : undefined;
}

export const skipped = "skipped: neither Prometheus nor Debian's package of it is to be had here";

async function unpack(directory: string): Promise<void> {
  await mkdir(cacheDirectory(), { recursive: true });
  const scratch = await mkdtemp(`${directory}-`);
  try {
    await run("apt-get", ["download", "prometheus"], { cwd: scratch });
    const [archive] = (await readdir(scratch)).filter((file) => file.endsWith(".deb"));
    if (archive === undefined) return;
    await run("dpkg-deb", ["--extract", archive, "unpacked"], { cwd: scratch });
    await rename(join(scratch, "unpacked"), directory);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
