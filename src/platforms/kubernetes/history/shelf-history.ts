import { MemoryHistory } from "../../../controller/history/memory-history.ts";
import { messageOf, UserError } from "../../../model/errors.ts";
import { LEVELS, type Sample } from "../../../model/history.ts";
import type { HistoryStore, LevelSample } from "../../../ports/history-store.ts";
import type { Shelf, ShelfObject } from "../secret-shelf.ts";
import { packedSamples, samplesIn } from "./history-object.ts";

/** On each object: the cluster. */
export const HISTORY_LABEL = "synapse-shards.io/history-of";
const KEY = "samples.json.gz";
/** As the levels are. */
const NAMES = ["minutes", "hours", "days"];
const WRITE_EVERY_MS = 600_000;
/** An API server that is away is not waited for at the end: what is not written is missing in a plot, and nowhere else. */
const CLOSE_MS = 3_000;

export interface ShelfHistoryOptions {
  shelf: Shelf;
  clusterId: string;
  /** Told in words what cannot be read or written. */
  onError: (message: string) => void;
  writeEveryMs?: number;
  /** How long the end waits for what is to be written. */
  closeMs?: number;
}

/** One level in one object. */
interface Part {
  step: number;
  name: string;
  /** Of the object that is there, as far as is known. */
  version?: string;
  isChanged: boolean;
}

/**
 * How the cluster was, in memory, and in an object for each level that the leader writes every ten minutes, and when it stops in order. A leader
 * that is killed takes with it what it had not written. Nobody's work depends on it: what cannot be read begins again.
 */
export class ShelfHistory implements HistoryStore {
  readonly #options: ShelfHistoryOptions;
  readonly #memory = new MemoryHistory();
  readonly #parts: Part[];
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  /** Its end has not waited for it. */
  #isLate = false;

  private constructor(options: ShelfHistoryOptions) {
    this.#options = options;
    this.#parts = LEVELS.map(({ step }, index) => ({
      step,
      name: `${options.clusterId}.history.${NAMES[index]}`,
      isChanged: false,
    }));
  }

  /** Resolves when what there is has been read, or could not be. */
  static async open(options: ShelfHistoryOptions): Promise<ShelfHistory> {
    const history = new ShelfHistory(options);
    await Promise.all(history.#parts.map((part) => history.#takeUp(part)));
    const { writeEveryMs = WRITE_EVERY_MS } = options;
    history.#timer = setInterval(() => void history.flush(), writeEveryMs).unref();
    return history;
  }

  read(step: number, from: number, to: number): Promise<Sample[]> {
    return this.#memory.read(step, from, to);
  }

  last(step: number): Promise<number | undefined> {
    return this.#memory.last(step);
  }

  async write(samples: readonly LevelSample[]): Promise<void> {
    await this.#memory.write(samples);
    const steps = new Set(samples.map(({ step }) => step));
    for (const part of this.#parts) if (steps.has(part.step)) part.isChanged = true;
  }

  prune(step: number, from: number, to: number): Promise<void> {
    return this.#memory.prune(step, from, to);
  }

  /** Writes what there is to write, as far as that takes seconds. */
  async close(): Promise<void> {
    const { closeMs = CLOSE_MS, onError } = this.#options;
    clearInterval(this.#timer);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((done) => {
      timer = setTimeout(() => {
        this.#isLate = true;
        onError("the history for the plots is not written to its end: the API server is slow, or away");
        done();
      }, closeMs);
    });
    await Promise.race([this.flush(), late]);
    clearTimeout(timer);
  }

  /** One after the other; what cannot be written is tried again the next time. */
  flush(): Promise<void> {
    this.#writing = this.#writing.then(async () => {
      for (const part of this.#parts) if (part.isChanged && !this.#isLate) await this.#writePart(part);
    });
    return this.#writing;
  }

  async #writePart(part: Part): Promise<void> {
    const { shelf, onError } = this.#options;
    // What comes while it is on its way is of the next time.
    part.isChanged = false;
    const data = { [KEY]: packedSamples(await this.#all(part)) };
    try {
      const { version } = part;
      const written = version === undefined ? undefined : await shelf.replace(part.name, data, version);
      part.version = written ?? (await shelf.create(part.name, data));
    } catch (error) {
      part.isChanged = true;
      onError(`the history for the plots is not written, and tried again: ${messageOf(error)}`);
      // A former leader wrote late, or an answer was lost: both have samples of their own.
      if (error instanceof UserError && error.code === "Conflict") await this.#takeUp(part);
    }
  }

  #all({ step }: Part): Promise<Sample[]> {
    return this.#memory.read(step, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY);
  }

  /** Takes from the object what is not known here. */
  async #takeUp(part: Part): Promise<void> {
    const { shelf, onError } = this.#options;
    try {
      const object = await shelf.read(part.name);
      if (object) part.version = object.version;
      else delete part.version;
      const known = new Set((await this.#all(part)).map(({ at }) => at));
      const missing = samplesOf(object).filter(({ at }) => !known.has(at));
      await this.#memory.write(missing.map((sample) => ({ step: part.step, ...sample })));
    } catch (error) {
      onError(`the history for the plots in the Secret ${part.name} cannot be read: ${messageOf(error)}`);
    }
  }
}

function samplesOf(object: ShelfObject | undefined): Sample[] {
  const bytes = object?.data[KEY];
  return bytes === undefined ? [] : samplesIn(bytes);
}
