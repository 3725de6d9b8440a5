import { createHash } from "node:crypto";
import { UserError } from "../../model/errors.ts";
import type { Stored } from "../../model/backup.ts";
import type { BackupTarget, Bytes } from "../../ports/backups.ts";

/** Passes bytes through, and knows afterwards how many they were and their hash. */
export class Hashed {
  readonly #hash = createHash("sha256");
  readonly #source: Bytes;
  readonly #onBytes: (bytes: number) => void;
  bytes = 0;
  #sha256: string | undefined;

  constructor(source: Bytes, onBytes: (bytes: number) => void = () => {}) {
    this.#source = source;
    this.#onBytes = onBytes;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const chunk of this.#source) {
      this.#hash.update(chunk);
      this.bytes += chunk.length;
      this.#onBytes(this.bytes);
      yield chunk;
    }
  }

  get sha256(): string {
    return (this.#sha256 ??= this.#hash.digest("hex"));
  }
}

/** Stores content under a key. @returns what a manifest says of it */
export async function store(
  target: BackupTarget,
  key: string,
  content: Bytes,
  onBytes?: (bytes: number) => void,
): Promise<Stored> {
  const hashed = new Hashed(content, onBytes);
  await target.put(key, hashed);
  return { key, bytes: hashed.bytes, sha256: hashed.sha256 };
}

/** Reads what a manifest speaks of. Its end fails where that is not what was stored. @throws UserError InvalidInput */
export async function* stored(
  target: BackupTarget,
  { key, bytes, sha256 }: Stored,
  onBytes?: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  const hashed = new Hashed((await target.get(key)) as Bytes, onBytes);
  yield* hashed;
  if (hashed.bytes === bytes && hashed.sha256 === sha256) return;
  throw new UserError(
    "InvalidInput",
    `${key} in ${target.place} is damaged: it has ${hashed.bytes} bytes with hash ${hashed.sha256}, ` +
      `and ${bytes} bytes with hash ${sha256} were stored; take another backup`,
  );
}

/** Reads all of something for what that shows. */
export async function readThrough(content: Bytes): Promise<void> {
  const chunks = content[Symbol.asyncIterator]();
  while (!(await chunks.next()).done);
}
