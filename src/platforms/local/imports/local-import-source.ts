import { createReadStream, rmSync } from "node:fs";
import { chown, lstat, mkdir, open, readdir, readlink, realpath, rename, rm, stat } from "node:fs/promises";
import { randomUUID } from "node:crypto";
import { join, resolve } from "node:path";
import { backup, DatabaseSync } from "node:sqlite";
import type { Readable } from "node:stream";
import { z } from "zod";
import { bucketTarget } from "../../../backups/target.ts";
import type { BucketConfig } from "../../../model/bucket.ts";
import type { MediaPlace } from "../../../model/import.ts";
import type { TenantCounts } from "../../../model/backup.ts";
import { messageOf, UserError } from "../../../model/errors.ts";
import { machineProblem } from "../../../model/machine-problem.ts";
import type { Bytes, MediaFile } from "../../../ports/backups.ts";
import type { DatabaseLogin } from "../../../ports/databases.ts";
import type { ConfigReview, ImportSource, PortWork, SqliteCopy } from "../../../ports/imports.ts";
import type { Assignment } from "../../../ports/shard-control.ts";
import { isMediaPath, ORIGINALS } from "../launcher/media-files.ts";
import { portConfig, runConfined, UNUSED_KEY, type ConfinedPython } from "./porter.ts";

export interface LocalImportOptions extends ConfinedPython {
  /** Installs a release if need be. */
  installSynapse(release: string): Promise<{ python: string }>;
  /** Makes sure of packages that tenants may name, and tells their directory. */
  installModules(release: string, python: string): Promise<string>;
}

/** homeserver.yaml and what it names. */
const LARGEST_TEXT = 1024 * 1024;
const MOST_TEXTS = 500;
const DEEPEST = 6;
const PAGES_AT_ONCE = 4_096;
const COPIED = "copy.db";
const CONFIG = "homeserver.yaml";
const PORTER = "synapse._scripts.synapse_port_db";

const ReviewSchema = z.union([
  z.object({ error: z.object({ code: z.string(), message: z.string() }) }),
  z.object({
    config: z.string(),
    taken: z.array(z.string()),
    refused: z.array(z.object({ option: z.string(), why: z.string(), owner: z.string() })),
    warnings: z.array(z.string()),
    problem: z.string().nullable(),
  }),
]);

/** A homeserver on this machine, which may be running. */
export class LocalImportSource implements ImportSource {
  readonly #options: LocalImportOptions;

  /** Removes what a process before left behind. */
  constructor(options: LocalImportOptions) {
    this.#options = options;
    rmSync(options.directory, { recursive: true, force: true });
  }

  async text(path: string, directory: string): Promise<string> {
    const file = resolve(directory, path);
    return readable(file, async () => {
      const handle = await open(file);
      try {
        const { size } = await handle.stat();
        if (size > LARGEST_TEXT) throw new UserError("InvalidInput", `${file} is larger than ${LARGEST_TEXT} bytes`);
        return await handle.readFile("utf8");
      } finally {
        await handle.close();
      }
    });
  }

  async texts(path: string, directory: string): Promise<Map<string, string>> {
    const folder = resolve(directory, path);
    const names = await readable(folder, () => namesBelow(folder, "", 2));
    if (names.length > MOST_TEXTS) throw new UserError("InvalidInput", `${folder} has more than ${MOST_TEXTS} files`);
    const found = new Map<string, string>();
    for (const name of names) found.set(name, await this.text(name, folder));
    return found;
  }

  async review(release: string, assignment: Assignment): Promise<ConfigReview> {
    const { python } = await this.#options.installSynapse(release);
    const output = await runConfined(this.#options, {
      python,
      args: ["-m", "multi_synapse.review"],
      modules: await this.#options.installModules(release, python),
      input: `${JSON.stringify(assignment)}\n`,
      signal: AbortSignal.timeout(120_000),
    });
    const answer = ReviewSchema.parse(JSON.parse(output));
    if (!("error" in answer)) return answer;
    throw new UserError("InvalidConfig", answer.error.message);
  }

  async copySqlite(path: string, { say, signal }: PortWork): Promise<SqliteCopy> {
    const folder = join(this.#options.directory, `sqlite-${randomUUID()}`);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const drop = () => rm(folder, { recursive: true, force: true });
    const file = join(folder, COPIED);
    try {
      await copyOnline(path, file, (percent) => {
        signal.throwIfAborted();
        say(`database: ${percent} % of ${path} copied`);
      });
      const counts = countsOf(file, path);
      const { size } = await stat(file);
      return {
        counts,
        bytes: size,
        drop,
        port: (into, options, work) => this.#port(file, into, options, work),
      };
    } catch (error) {
      await drop();
      throw error;
    }
  }

  async #port(
    copy: string,
    { database, sslMode, ...login }: DatabaseLogin,
    { release, serverName }: { release: string; serverName: string },
    { say, signal }: PortWork,
  ): Promise<void> {
    const { python } = await this.#options.installSynapse(release);
    const args = { ...login, dbname: database, ...(sslMode === undefined ? {} : { sslmode: sslMode }) };
    try {
      await runConfined(
        this.#options,
        {
          python,
          args: ["-m", PORTER, "--sqlite-database", COPIED, "--postgres-config", CONFIG],
          files: { [CONFIG]: portConfig(serverName, args), "signing.key": UNUSED_KEY },
          onLine: (line) => {
            if (/^\w+: \d+% /.test(line)) say(`database: ${line}`);
          },
          signal,
        },
        async (own, uid) => {
          const place = join(own, COPIED);
          await rename(copy, place);
          if (uid !== undefined) await chown(place, uid, uid);
        },
      );
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      const hint = /background updates/i.test(error.message)
        ? `; give --from-release, the release that the old server ran last, or let that finish its updates first`
        : "";
      throw new UserError("InvalidInput", `synapse_port_db of Synapse ${release} failed: ${error.message}${hint}`, {
        cause: error,
      });
    }
  }

  async userOf(path: string): Promise<string | undefined> {
    const real = await realpath(path).catch(() => path);
    for (const pid of await readdir("/proc").catch(() => [])) {
      if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
      for (const descriptor of await readdir(`/proc/${pid}/fd`).catch(() => []))
        if ((await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => "")) === real) return `process ${pid}`;
    }
    return undefined;
  }

  async dump(path: string): Promise<{ content: Bytes; bytes: number }> {
    return readable(path, async () => {
      const handle = await open(path);
      const { size } = await handle.stat();
      const start = Buffer.alloc(5);
      await handle.read(start, 0, 5, 0);
      if (start.toString("latin1") !== "PGDMP") {
        await handle.close();
        throw new UserError(
          "InvalidInput",
          `${path} is not a dump in pg_dump's custom format: make one with \`pg_dump --format=custom\`; a text could have psql run programs`,
        );
      }
      return { content: createReadStream("", { fd: handle, start: 0 }) as Bytes, bytes: size };
    });
  }

  async *media(place: MediaPlace): AsyncIterable<MediaFile> {
    for (const top of ORIGINALS)
      yield* typeof place === "string" ? mediaBelow(place, top, DEEPEST) : mediaIn(place, `${top}/`);
  }

  async openMedia(place: MediaPlace, path: string): Promise<Readable> {
    if (typeof place !== "string") return bucketTarget(place).get(path);
    const directory = place;
    return readable(join(directory, path), async () => createReadStream("", { fd: await open(join(directory, path)) }));
  }

  async mayHaveMedia(place: MediaPlace): Promise<boolean> {
    if (typeof place !== "string") return true;
    const path = place;
    return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
  }
}

/** As Synapse's S3 storage provider lays them out: like the directory. */
async function* mediaIn(place: BucketConfig, prefix: string): AsyncIterable<MediaFile> {
  for await (const { key, bytes, modifiedAt } of bucketTarget(place).list(prefix))
    if (isMediaPath(key)) yield { path: key, bytes, modifiedAt };
}

async function* mediaBelow(directory: string, folder: string, depth: number): AsyncIterable<MediaFile> {
  if (depth === 0) return;
  const entries = await readable(join(directory, folder), () =>
    readdir(join(directory, folder), { withFileTypes: true }),
  ).catch((error: unknown) => {
    if (depth === DEEPEST && (error as { cause?: { code?: unknown } }).cause?.code === "ENOENT") return [];
    throw error;
  });
  for (const entry of entries) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) yield* mediaBelow(directory, path, depth - 1);
    if (!entry.isFile() || !isMediaPath(path)) continue;
    const found = await lstat(join(directory, path)).catch(() => undefined);
    if (found?.isFile()) yield { path, bytes: found.size, modifiedAt: Math.floor(found.mtimeMs) };
  }
}

async function namesBelow(directory: string, folder: string, depth: number): Promise<string[]> {
  const names: string[] = [];
  for (const entry of await readdir(join(directory, folder), { withFileTypes: true })) {
    const name = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (entry.isFile()) names.push(name);
    else if (entry.isDirectory() && depth > 1) names.push(...(await namesBelow(directory, name, depth - 1)));
  }
  return names.toSorted();
}

/** As SQLite does it, while others write. */
async function copyOnline(path: string, to: string, onPercent: (percent: number) => void): Promise<void> {
  await readable(path, async () => {
    // It says what is wrong better than SQLite does.
    await (await open(path)).close();
    try {
      const source = new DatabaseSync(path, { readOnly: true });
      try {
        await backup(source, to, {
          rate: PAGES_AT_ONCE,
          progress: ({ totalPages, remainingPages }) =>
            onPercent(totalPages === 0 ? 100 : Math.floor((100 * (totalPages - remainingPages)) / totalPages)),
        });
      } finally {
        source.close();
      }
    } catch (error) {
      const problem = machineProblem(error);
      if (problem !== undefined) throw new UserError("Unavailable", `${path} cannot be copied: ${problem}`);
      if (error instanceof UserError || (error as { code?: unknown }).code !== "ERR_SQLITE_ERROR") throw error;
      throw new UserError("InvalidInput", `${path} cannot be read as a SQLite database: ${messageOf(error)}`);
    }
  });
}

const COUNTED: Record<keyof TenantCounts, string> = {
  users: "users",
  devices: "devices WHERE NOT hidden",
  rooms: "rooms",
  events: "events",
  media: "local_media_repository",
};

/** @param named what it is a copy of */
function countsOf(file: string, named: string): TenantCounts {
  const database = new DatabaseSync(file);
  try {
    // One file again, which can be moved.
    database.exec("PRAGMA journal_mode = DELETE");
    const count = (what: string) => Number(database.prepare(`SELECT count(*) AS n FROM ${what}`).get()?.["n"]);
    return Object.fromEntries(Object.entries(COUNTED).map(([key, what]) => [key, count(what)])) as TenantCounts;
  } catch (error) {
    throw new UserError("InvalidInput", `${named} is not the database of a Synapse: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    database.close();
  }
}

/** @throws UserError InvalidInput that names the file */
async function readable<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (error instanceof UserError || syscall === undefined) throw error;
    const why = code === "ENOENT" ? "it is not there" : (machineProblem(error) ?? messageOf(error));
    throw new UserError("InvalidInput", `${file} cannot be read on the controller's machine: ${why}`, { cause: error });
  }
}
