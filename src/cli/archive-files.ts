import { createHash } from "node:crypto";
import { mkdir, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createReadStream, createWriteStream } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { text } from "node:stream/consumers";
import { unpacked } from "../archives/tar.ts";
import {
  ARCHIVED,
  ExportManifestSchema,
  readChecksums,
  type ArchiveFile,
  type ExportManifest,
} from "../model/archive.ts";
import { messageOf, UserError } from "../model/errors.ts";
import { machineProblem } from "../model/machine-problem.ts";
import { CliError, EXIT } from "./errors.ts";

/** What is not complete has this after its name. */
const DRAFT = ".part";
/** In a directory of ours that is not complete: nothing else is removed. */
const MARK = ".synapse-shards-export";

/** Keeps an archive as one tar, once it is complete and all hashes are right. */
export async function keepAsFile(
  archive: AsyncIterable<Uint8Array>,
  file: string,
  onBytes: (bytes: number) => void,
): Promise<ExportManifest> {
  await refuseTaken(file);
  return onDisk(file, async () => {
    const draft = await open(`${file}${DRAFT}`, "w", 0o600);
    try {
      const manifest = await checked(written(counted(archive, onBytes), draft), () => undefined);
      await draft.sync();
      await rename(`${file}${DRAFT}`, file);
      return manifest;
    } catch (error) {
      await rm(`${file}${DRAFT}`, { force: true });
      throw error;
    } finally {
      await draft.close();
    }
  });
}

/** Keeps an archive's files in a directory, which has its name only when it is complete and all hashes are right. */
export async function keepAsDirectory(
  archive: AsyncIterable<Uint8Array>,
  directory: string,
  onBytes: (bytes: number) => void,
): Promise<ExportManifest> {
  await refuseTaken(directory);
  const draft = `${directory}${DRAFT}`;
  return onDisk(directory, async () => {
    if (await exists(draft)) {
      if (!(await exists(join(draft, MARK)))) throw taken(draft);
      await rm(draft, { recursive: true });
    }
    await mkdir(draft, { mode: 0o700 });
    await writeFile(join(draft, MARK), "");
    try {
      const manifest = await checked(counted(archive, onBytes), async (path, content) => {
        const file = join(draft, path);
        await mkdir(dirname(file), { recursive: true, mode: 0o700 });
        await pipeline(Readable.from(content, { objectMode: false }), createWriteStream(file, { mode: 0o600 }));
      });
      await rm(join(draft, MARK));
      await rename(draft, directory);
      return manifest;
    } catch (error) {
      await rm(draft, { recursive: true, force: true });
      throw error;
    }
  });
}

type Keep = (path: string, content: AsyncIterable<Uint8Array>) => Promise<void> | undefined;

/** @throws CliError where it is not complete, or anything in it is not what was sent */
async function checked(archive: AsyncIterable<Uint8Array>, keep: Keep): Promise<ExportManifest> {
  const found = new Map<string, string>();
  let sums: Map<string, string> | undefined;
  let manifest: ExportManifest | undefined;
  for await (const file of unpacked(archive)) {
    if (file.path === ARCHIVED.failed)
      throw new CliError(EXIT.failed, `the export failed: ${(await text(file.content)).trim()}`);
    const isLists = file.path === ARCHIVED.checksums || file.path === ARCHIVED.manifest;
    const kept: Uint8Array[] = [];
    const content = hashed(file, found, isLists ? kept : undefined);
    const keeping = keep(file.path, content);
    await keeping;
    if (!keeping) await readThrough(content);
    if (file.path === ARCHIVED.checksums) sums = readChecksums(Buffer.concat(kept).toString("utf8"));
    if (file.path === ARCHIVED.manifest) manifest = manifestIn(Buffer.concat(kept).toString("utf8"));
  }
  if (!manifest || !sums) throw damaged("its end is missing");
  if (found.get(ARCHIVED.checksums) !== manifest.checksums.sha256)
    throw damaged(`${ARCHIVED.checksums} is not its own`);
  for (const [path, sha256] of sums) if (found.get(path) !== sha256) throw damaged(`${path} is not what was sent`);
  if (found.size !== sums.size + 2) throw damaged(`it has ${found.size} files instead of ${sums.size + 2}`);
  return manifest;
}

async function readThrough(content: AsyncIterable<Uint8Array>): Promise<void> {
  const chunks = content[Symbol.asyncIterator]();
  while (!(await chunks.next()).done);
}

function manifestIn(content: string): ExportManifest | undefined {
  try {
    return ExportManifestSchema.parse(JSON.parse(content));
  } catch {
    return undefined;
  }
}

function damaged(why: string): CliError {
  return new CliError(EXIT.failed, `the archive is damaged: ${why}; run the command again`);
}

async function* hashed(
  { path, content }: ArchiveFile,
  found: Map<string, string>,
  kept: Uint8Array[] | undefined,
): AsyncGenerator<Uint8Array> {
  const hash = createHash("sha256");
  for await (const chunk of content) {
    hash.update(chunk);
    kept?.push(chunk);
    yield chunk;
  }
  found.set(path, hash.digest("hex"));
}

async function* counted(archive: AsyncIterable<Uint8Array>, onBytes: (bytes: number) => void) {
  let bytes = 0;
  for await (const chunk of archive) {
    onBytes((bytes += chunk.length));
    yield chunk;
  }
}

async function* written(archive: AsyncIterable<Uint8Array>, to: Awaited<ReturnType<typeof open>>) {
  for await (const chunk of archive) {
    for (let at = 0; at < chunk.length;) at += (await to.write(chunk, at, chunk.length - at)).bytesWritten;
    yield chunk;
  }
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

async function refuseTaken(path: string): Promise<void> {
  if (await exists(path)) throw taken(path);
}

function taken(path: string): CliError {
  return new CliError(EXIT.usage, `${path} is there already: give another name, or remove it`);
}

/** @throws CliError that names the place, for what the machine says */
async function onDisk<T>(place: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof CliError) throw error;
    if (error instanceof UserError) throw new CliError(EXIT.failed, error.message, { cause: error });
    const { syscall } = error as NodeJS.ErrnoException;
    if (syscall === undefined) throw error;
    throw new CliError(EXIT.failed, `cannot read or write ${place}: ${machineProblem(error) ?? messageOf(error)}`, {
      cause: error,
    });
  }
}

/** @throws CliError usage */
export async function refuseNoDirectory(path: string): Promise<void> {
  const found = await stat(dirname(path)).catch(() => undefined);
  if (!found?.isDirectory())
    throw new CliError(EXIT.usage, `--to: there is no directory ${dirname(path)} to put it into`);
}

/** An exported archive as a directory whose files are what was exported. @throws CliError */
export async function openArchive(path: string): Promise<{ directory: string; done(): Promise<void> }> {
  const found = await stat(path).catch(() => undefined);
  if (!found) throw new CliError(EXIT.usage, `--archive: there is no ${path}`);
  if (!found.isDirectory()) {
    const directory = `${path}.unpacked`;
    // Of a command that was killed.
    if (await exists(directory)) await openArchive(directory);
    else await keepAsDirectory(createReadStream(path) as AsyncIterable<Uint8Array>, directory, () => {});
    return { directory, done: () => rm(directory, { recursive: true, force: true }) };
  }
  await onDisk(path, async () => {
    const manifest = manifestIn(await readFile(join(path, ARCHIVED.manifest), "utf8"));
    const lists = await readFile(join(path, ARCHIVED.checksums), "utf8");
    const sums = readChecksums(lists);
    if (!manifest || !sums || sha256(lists) !== manifest.checksums.sha256)
      throw new CliError(EXIT.failed, `${path} is no complete archive of \`tenant export\``);
    for (const [file, expected] of sums) {
      // The README says to put a password there.
      if (file === ARCHIVED.config) continue;
      const hash = createHash("sha256");
      for await (const chunk of createReadStream(join(path, file))) hash.update(chunk as Buffer);
      if (hash.digest("hex") !== expected) throw new CliError(EXIT.failed, `${path}/${file} is not what was exported`);
    }
  });
  return { directory: path, done: async () => {} };
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
