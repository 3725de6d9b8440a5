import { createReadStream, type Stats } from "node:fs";
import { open, stat } from "node:fs/promises";
import { StringDecoder } from "node:string_decoder";
import { setTimeout as sleep } from "node:timers/promises";
import { linesOf } from "../../../logging/lines.ts";

const POLL_MS = 300;

/** The last `count` lines of a log that rotates to `FILE.1`, `FILE.2`, …; all that there are if no count is given. */
export async function* lastLines(
  file: string,
  count = Number.POSITIVE_INFINITY,
): AsyncGenerator<string, void, undefined> {
  const last: string[] = [];
  for (const part of [`${file}.1`, file]) {
    if (!(await sizeOf(part))) continue;
    for await (const line of linesOf(createReadStream(part))) {
      last.push(line);
      // Dropped in blocks: shifting one by one through a large log would be quadratic.
      if (last.length > 2 * count + 1000) last.splice(0, last.length - count);
    }
  }
  yield* Number.isFinite(count) ? last.slice(-count) : last;
}

/** Lines as they are written from now on, over rotations, until the signal aborts. */
export async function* followLines(file: string, signal?: AbortSignal): AsyncGenerator<string, void, undefined> {
  let inode = (await sizeOf(file))?.ino;
  let position = (await sizeOf(file))?.size ?? 0;
  const decoder = new StringDecoder("utf8");
  let rest = "";
  while (!signal?.aborted) {
    const now = await sizeOf(file);
    if (now && now.ino !== inode) {
      inode = now.ino;
      position = 0;
    }
    if (now && now.size > position) {
      const handle = await open(file, "r");
      const buffer = Buffer.alloc(Math.min(now.size - position, 1 << 20));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
      await handle.close();
      position += bytesRead;
      const lines = (rest + decoder.write(buffer.subarray(0, bytesRead))).split("\n");
      rest = lines.pop() ?? "";
      yield* lines;
    } else {
      await sleep(POLL_MS, undefined, { signal }).catch(() => {});
    }
  }
}

async function sizeOf(file: string): Promise<Stats | undefined> {
  return stat(file).catch(() => undefined);
}
