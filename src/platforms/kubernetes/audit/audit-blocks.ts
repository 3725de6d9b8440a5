import { blockIn, blockWith, linesIn, packedBlock, type Head } from "./audit-objects.ts";
import type { Shelf } from "../secret-shelf.ts";

/** Half of what Kubernetes takes in an object. Some 9,000 entries. */
const BLOCK_BYTES = 512 * 1024;
/**
 * However long they are to be kept: 64 MiB, which etcd, whose database is to stay below 2 GiB, has for this without being asked. About a million
 * entries, 2,500 a day for 400 days.
 */
const MOST_BLOCKS = 128;
const DAY_MS = 86_400_000;

export interface AuditBlocksOptions {
  shelf: Shelf;
  clusterId: string;
  /** A block is removed whose newest entry is older. */
  keepDays: number;
  onProblem: (message: string) => void;
  now?: () => number;
  blockBytes?: number;
  mostBlocks?: number;
}

/** Lines of the audit log that the head does not hold any more. */
export class AuditBlocks {
  readonly #options: AuditBlocksOptions;
  /** Of the oldest one, which is read once: its number, and when its newest entry was made. */
  #oldest: { number: number; newest: string } | undefined;

  constructor(options: AuditBlocksOptions) {
    this.#options = options;
  }

  /**
   * Takes the head's lines, as far as they are not there: whoever began this before may have been killed, or have lost the lease.
   * @returns the head without them, which is still to be written
   */
  async take(head: Head): Promise<Head> {
    const { shelf, blockBytes = BLOCK_BYTES } = this.#options;
    const { lines, from } = head;
    let number = Math.max(head.first, head.next - 1);
    let taken = from;
    for (; ; number++) {
      const name = this.#nameOf(number);
      const found = await shelf.read(name);
      const block = found && readable(() => blockIn(found.data));
      // What cannot be read stays as it is, for whoever asks what became of it.
      if (found && !block) continue;
      if (block) taken = Math.max(taken, block.from + block.count);
      const missing = lines.slice(taken - from);
      if (missing.length === 0) break;
      const grown = blockWith(missing, taken, block);
      if (!found) {
        await shelf.create(name, packedBlock(grown));
        break;
      }
      if (grown.bytes.length > blockBytes) continue;
      // One that was removed just now is made again.
      if ((await shelf.replace(name, packedBlock(grown), found.version)) === undefined) number -= 1;
      else break;
    }
    const first = await this.#prune(head.first, number + 1);
    return { ...head, first, next: number + 1, from: from + lines.length, lines: [] };
  }

  /**
   * The lines of the blocks that a head names, oldest first.
   * @param onProblem told of a block that is missing among others, or cannot be read
   */
  async *lines({ first, next, from }: Head, onProblem: (problem: string) => void): AsyncGenerator<string[]> {
    let expected = -1;
    for (let number = first; number < next; number++) {
      const block = await this.#read(number, (problem) => (expected < 0 ? undefined : onProblem(problem)), onProblem);
      if (!block) continue;
      const { lines } = block;
      // A head's lines are in a block a moment before they are not in the head any more.
      yield lines.slice(Math.max(0, expected - block.from), Math.max(0, from - block.from));
      expected = Math.max(expected, block.from + lines.length);
    }
  }

  /** The same, the newest block first. */
  async *backwards({ first, next, from }: Head, onProblem: (problem: string) => void): AsyncGenerator<string[]> {
    let upTo = from;
    for (let number = next - 1; number >= first; number--) {
      const block = await this.#read(number, onProblem, onProblem);
      if (!block) continue;
      yield block.lines.slice(0, Math.max(0, upTo - block.from));
      upTo = Math.min(upTo, block.from);
    }
  }

  /** Where there is no head: what it says when nothing is in it. The chain does not go on from the blocks, as what was in the head is lost. */
  async without(): Promise<Omit<Head, "leader">> {
    const names = await this.#options.shelf.names();
    const numbers = names
      .filter((name) => name.startsWith(this.#nameOf("")))
      .map((name) => Number(name.slice(this.#nameOf("").length)))
      .filter((number) => Number.isSafeInteger(number));
    if (numbers.length === 0) return { from: 0, first: 0, next: 0, last: "", lines: [] };
    const [first, newest] = [Math.min(...numbers), Math.max(...numbers)];
    const head = { first, next: newest + 1, last: "", lines: [] };
    for (let number = newest; number >= first; number--) {
      const found = await this.#options.shelf.read(this.#nameOf(number));
      const block = found && readable(() => blockIn(found.data));
      if (block) return { ...head, from: block.from + block.count };
    }
    return { ...head, from: 0 };
  }

  /** The dots keep it apart from what tenants' owners call their Secrets. */
  #nameOf(number: number | ""): string {
    return `${this.#options.clusterId}.audit.${number}`;
  }

  async #read(
    number: number,
    onMissing: (problem: string) => void,
    onUnreadable: (problem: string) => void,
  ): Promise<{ from: number; lines: string[] } | undefined> {
    const name = this.#nameOf(number);
    const found = await this.#options.shelf.read(name);
    if (!found) {
      onMissing(`the Secret ${name} is missing`);
      return undefined;
    }
    const read = readable(() => {
      const { from, bytes } = blockIn(found.data);
      return { from, lines: linesIn(bytes) };
    });
    if (!read) onUnreadable(`the Secret ${name} cannot be read`);
    return read;
  }

  /** @returns the number of the oldest that is kept */
  async #prune(first: number, next: number): Promise<number> {
    const { shelf, keepDays, onProblem, now = Date.now, mostBlocks = MOST_BLOCKS } = this.#options;
    const kept = new Date(now() - keepDays * DAY_MS).toISOString();
    for (; first < next - 1; first++) {
      const newest = await this.#newestIn(first);
      const isOld = newest !== undefined && newest < kept;
      if (newest !== undefined && !isOld && next - first <= mostBlocks) return first;
      if (newest !== undefined && !isOld)
        onProblem(
          `entries of the audit log up to ${newest} are removed, although they are to be kept for ${keepDays} days: it takes ${mostBlocks} Secrets. ` +
            "Lines of the controller's log have them, where that is collected",
        );
      await shelf.remove(this.#nameOf(first));
    }
    return first;
  }

  /** Undefined: it is gone. */
  async #newestIn(number: number): Promise<string | undefined> {
    if (this.#oldest?.number === number) return this.#oldest.newest;
    const found = await this.#options.shelf.read(this.#nameOf(number));
    if (!found) return undefined;
    // One that cannot be read is kept for as long as there is room.
    const newest = readable(() => blockIn(found.data))?.newest ?? "9999";
    this.#oldest = { number, newest };
    return newest;
  }
}

function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
