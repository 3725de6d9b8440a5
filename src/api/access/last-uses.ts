import { z } from "zod";
import { messageOf } from "../../model/errors.ts";
import { JsonFile, type JsonFileOptions } from "./json-file.ts";

/** Enough to see which tokens nobody needs any more; a write for each request would be the store's largest load. */
const NOTED_EVERY_MS = 5 * 60_000;

const FileSchema = z.record(z.string(), z.iso.datetime());

/** When tokens were last used, by their names. */
export interface LastUses {
  note(name: string): void;
  of(name: string): string | undefined;
  forget(name: string): void;
}

/** In memory alone, where there is no file for it: since the start. */
export class RememberedUses implements LastUses {
  readonly #now: () => Date;
  readonly #at = new Map<string, Date>();

  constructor(now: () => Date = () => new Date()) {
    this.#now = now;
  }

  /** @returns whether it is to be written down */
  note(name: string): boolean {
    const now = this.#now();
    const before = this.#at.get(name);
    if (before && Math.abs(now.getTime() - before.getTime()) < NOTED_EVERY_MS) return false;
    this.#at.set(name, now);
    return true;
  }

  of(name: string): string | undefined {
    return this.#at.get(name)?.toISOString();
  }

  forget(name: string): void {
    this.#at.delete(name);
  }

  names(): string[] {
    return [...this.#at.keys()];
  }
}

export class FileUses implements LastUses {
  readonly #file: JsonFile<Record<string, string>>;
  readonly #remembered: RememberedUses;
  readonly #onProblem: (message: string) => void;

  constructor(options: Omit<JsonFileOptions, "what">, now?: () => Date) {
    this.#file = new JsonFile({ ...options, what: "the last uses of tokens" }, {}, (json) => FileSchema.parse(json));
    this.#remembered = new RememberedUses(now);
    this.#onProblem = options.onProblem;
  }

  note(name: string): void {
    if (this.#remembered.note(name)) this.#write();
  }

  forget(name: string): void {
    this.#remembered.forget(name);
    this.#write(name);
  }

  of(name: string): string | undefined {
    return this.#remembered.of(name) ?? this.#file.read()[name];
  }

  #write(without?: string): void {
    const noted = this.#remembered.names().map((name) => [name, this.#remembered.of(name) ?? ""] as const);
    const all = { ...this.#file.read(), ...Object.fromEntries(noted) };
    if (without !== undefined) delete all[without];
    // A disk that takes nothing keeps nobody out.
    try {
      this.#file.write(all, all);
    } catch (error) {
      this.#onProblem(`when tokens were last used cannot be written down: ${messageOf(error)}`);
    }
  }
}
