import { readFileSync, statSync } from "node:fs";
import { messageOf, UserError } from "../../model/errors.ts";

export interface JsonFileOptions {
  file: string;
  /** Replaces the file's text at once and for good. */
  write: (text: string) => void;
  /** Told that the file cannot be read; what was read last stays good. */
  onProblem: (message: string) => void;
  /** What is in it, in words. */
  what: string;
}

/** A small JSON file of ours that other programs may change too: it is read again once it is another one. */
export class JsonFile<T> {
  readonly #options: JsonFileOptions;
  readonly #parse: (json: unknown) => T;
  readonly #empty: T;
  #value: T;
  #readAt = "none";
  #isUnreadable = false;

  /** @param empty what there is without a file @param parse throws what is wrong */
  constructor(options: JsonFileOptions, empty: T, parse: (json: unknown) => T) {
    this.#options = options;
    this.#empty = empty;
    this.#value = empty;
    this.#parse = parse;
  }

  read(): T {
    const { file, what, onProblem } = this.#options;
    const found = statSync(file, { throwIfNoEntry: false });
    const version = found ? `${found.ino}-${found.mtimeMs}-${found.size}` : "none";
    if (version === this.#readAt) return this.#value;
    this.#readAt = version;
    this.#isUnreadable = false;
    try {
      this.#value = found ? this.#parse(JSON.parse(readFileSync(file, "utf8"))) : this.#empty;
    } catch (error) {
      this.#isUnreadable = true;
      onProblem(`${what} in ${file} cannot be read, those from before stay good: ${messageOf(error)}`);
    }
    return this.#value;
  }

  /** @param value what the text is read as @throws UserError where that would replace what could not be read */
  write(json: unknown, value: T): void {
    this.read();
    const { file, what } = this.#options;
    if (this.#isUnreadable)
      throw new UserError(
        "Conflict",
        `${what} in ${file} cannot be read, so nothing is changed: repair the file first`,
      );
    this.#options.write(`${JSON.stringify(json, null, 2)}\n`);
    this.#value = value;
  }
}
