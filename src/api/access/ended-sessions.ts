import { z } from "zod";
import { JsonFile, type JsonFileOptions } from "./json-file.ts";

/** Sessions that were signed out, by their ids, until they would have ended by their time. */
export interface EndedSessions {
  has(id: string): boolean;
  /** Resolves when it is written down where the next controller reads it. */
  add(id: string, until: Date, now: Date): Promise<void>;
}

/** In memory alone: for tests, and until there is something better. */
export class RememberedEnds implements EndedSessions {
  #ended: Record<string, string> = {};

  has(id: string): boolean {
    return Object.hasOwn(this.#ended, id);
  }

  async add(id: string, until: Date, now: Date): Promise<void> {
    this.#ended = withEnded(this.#ended, { id, until, now });
  }
}

export class FileEnds implements EndedSessions {
  readonly #file: JsonFile<Record<string, string>>;

  constructor(options: Omit<JsonFileOptions, "what">) {
    const schema = z.record(z.string(), z.iso.datetime());
    this.#file = new JsonFile({ ...options, what: "the sessions that were signed out" }, {}, (json) =>
      schema.parse(json),
    );
  }

  has(id: string): boolean {
    return Object.hasOwn(this.#file.read(), id);
  }

  async add(id: string, until: Date, now: Date): Promise<void> {
    const ended = withEnded(this.#file.read(), { id, until, now });
    this.#file.write(ended, ended);
  }
}

/** Those whose time is over need no remembering. */
export function withEnded(
  ended: Readonly<Record<string, string>>,
  { id, until, now }: { id: string; until: Date; now: Date },
): Record<string, string> {
  const rest = Object.entries(ended).filter(([, time]) => Date.parse(time) >= now.getTime());
  return { ...Object.fromEntries(rest), [id]: until.toISOString() };
}
