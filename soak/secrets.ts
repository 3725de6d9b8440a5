import { open, readdir, readFile, stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { SecretBox, storeKey } from "../src/platforms/local/store/secret-box.ts";
import { pathsIn } from "../src/platforms/local/data-directory.ts";

/** Shorter ones would be found by chance. */
const SHORTEST = 12;
const BLOCK = 1 << 20;

/** A secret and its description, so that a finding can be reported without the secret. */
export interface Secret {
  what: string;
  value: string;
}

/** The secrets that are in the text. */
export function secretsIn(text: string, secrets: readonly Secret[]): string[] {
  return secrets.filter(({ value }) => value.length >= SHORTEST && text.includes(value)).map(({ what }) => what);
}

/** All secrets that a cluster has at present, except those of its users. */
export async function secretsOf(dataDir: string): Promise<Secret[]> {
  const paths = pathsIn(dataDir);
  const found: Secret[] = [];
  const add = (what: string, value: string | undefined): void => {
    if (value) found.push({ what, value: value.trim() });
  };
  const textOf = (file: string): Promise<string | undefined> => readFile(file, "utf8").catch(() => undefined);
  add("the API's token", await textOf(paths.apiToken));
  add("the gateway's token", await textOf(paths.gatewayToken));
  add("PostgreSQL's password", await textOf(paths.postgresPassword));
  for (const shard of await readdir(paths.shards).catch(() => []))
    add(`the token of shard ${shard}`, await textOf(join(paths.shards, shard, "token")));
  add("the key of the store", await textOf(paths.storeKey));
  const box = new SecretBox(storeKey(paths.storeKey, false));
  const db = new DatabaseSync(join(dataDir, "store.db"), { readOnly: true });
  try {
    for (const row of db.prepare("SELECT tenant, body FROM secrets").all() as { tenant: string; body: string }[]) {
      const {
        serverName: _,
        signingKey,
        ...others
      } = JSON.parse(box.open(`secrets/${row.tenant}`, row.body)) as Record<string, string>;
      add(`the signing key of ${row.tenant}`, signingKey?.trim().split(" ").at(-1));
      for (const [key, value] of Object.entries(others)) add(`${key} of ${row.tenant}`, value);
    }
  } finally {
    db.close();
  }
  return found;
}

/** Reads what was added to a cluster's logs since the last call. */
export class LogSweep {
  readonly #dataDir: string;
  readonly #read = new Map<string, { inode: number; offset: number }>();

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
  }

  /** Where secrets were found: the log and the description. */
  async leaks(secrets: readonly Secret[]): Promise<string[]> {
    const found = new Set<string>();
    for (const file of await this.#logs()) {
      for await (const text of this.#news(file))
        for (const what of secretsIn(text, secrets)) found.add(`${relative(this.#dataDir, file)}: ${what}`);
    }
    return [...found];
  }

  async #logs(): Promise<string[]> {
    const isLog = (name: string): boolean => /\.log(\.\d+)?$/.test(name);
    const shards = pathsIn(this.#dataDir).shards;
    const here = (await readdir(this.#dataDir)).map((name) => join(this.#dataDir, name));
    const below = await Promise.all(
      (await readdir(shards).catch(() => [])).map(async (shard) =>
        (await readdir(join(shards, shard)).catch(() => [])).map((name) => join(shards, shard, name)),
      ),
    );
    return [...here, ...below.flat()].filter(isLog);
  }

  async *#news(file: string): AsyncGenerator<string, void, undefined> {
    const now = await stat(file).catch(() => undefined);
    if (!now) return;
    const before = this.#read.get(file);
    const same = before?.inode === now.ino && before.offset <= now.size;
    // Overlaps with what was read before, because a secret may have been cut in two.
    let offset = same ? Math.max(0, before.offset - 200) : 0;
    const handle = await open(file, "r").catch(() => undefined);
    if (!handle) return;
    try {
      const buffer = Buffer.alloc(BLOCK);
      for (;;) {
        const { bytesRead } = await handle.read(buffer, 0, BLOCK, offset);
        if (bytesRead === 0) break;
        yield buffer.toString("utf8", 0, bytesRead);
        if (bytesRead < BLOCK) {
          offset += bytesRead;
          break;
        }
        offset += bytesRead - 200;
      }
    } finally {
      await handle.close();
    }
    this.#read.set(file, { inode: now.ino, offset });
  }
}
