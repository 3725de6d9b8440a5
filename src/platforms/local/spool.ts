import { createHash, randomUUID } from "node:crypto";
import { createReadStream, createWriteStream, mkdirSync, rmSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Bytes } from "../../ports/backups.ts";
import type { Spool, Spooled } from "../../ports/spool.ts";

/** Files in a directory of the cluster, which only its user can read. */
export class LocalSpool implements Spool {
  readonly #directory: string;

  /** Removes what a process before left there. */
  constructor(directory: string) {
    this.#directory = directory;
    rmSync(directory, { recursive: true, force: true });
  }

  async hold(content: Bytes): Promise<Spooled> {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    const file = join(this.#directory, randomUUID());
    const hash = createHash("sha256");
    let bytes = 0;
    async function* counted(): AsyncGenerator<Uint8Array> {
      for await (const chunk of content) {
        hash.update(chunk);
        bytes += chunk.length;
        yield chunk;
      }
    }
    const drop = () => rm(file, { force: true });
    try {
      await pipeline(Readable.from(counted(), { objectMode: false }), createWriteStream(file, { mode: 0o600 }));
    } catch (error) {
      await drop();
      throw error;
    }
    return { bytes, sha256: hash.digest("hex"), read: () => createReadStream(file) as Bytes, drop };
  }
}
