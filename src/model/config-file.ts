import { open } from "node:fs/promises";
import { parseDocument } from "yaml";
import type { z } from "zod";
import { messageOf, UserError } from "./errors.ts";
import { describeIssues } from "./validation.ts";

/** Ours are a few KiB. The parser takes quadratic time for many keys: 64 KiB of them take less than a second. */
const MOST_BYTES = 64 * 1024;
const MOST_ALIASES = 100;

/**
 * Reads one of the project's configuration files, YAML or JSON (which is YAML), and checks it.
 * @throws UserError InvalidConfig that names each wrong path, what was given and what is allowed
 */
export async function readConfigFile<T extends z.ZodType>(path: string, schema: T): Promise<z.infer<T>> {
  return parseConfigText(await readBounded(path), schema, path);
}

/** The same of a text. @param where it came from, for errors */
export function parseConfigText<T extends z.ZodType>(text: string, schema: T, where: string): z.infer<T> {
  return checkConfig(documentIn(text, where), schema, where);
}

/** Checks a document that has been parsed already. @throws UserError InvalidConfig */
export function checkConfig<T extends z.ZodType>(document: unknown, schema: T, where: string): z.infer<T> {
  const result = schema.safeParse(document ?? {}, { reportInput: true });
  if (result.success) return result.data;
  throw new UserError("InvalidConfig", `${where}: ${describeIssues(result.error, schema).join("; ")}`);
}

async function readBounded(path: string): Promise<string> {
  try {
    const file = await open(path);
    try {
      // Not by its size: a pipe or a device has none.
      const buffer = Buffer.alloc(MOST_BYTES + 1);
      let length = 0;
      for (let read = -1; read !== 0 && length < buffer.length; length += read) {
        ({ bytesRead: read } = await file.read(buffer, length, buffer.length - length));
      }
      if (length > MOST_BYTES) throw tooLarge(path);
      return buffer.toString("utf8", 0, length);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError("InvalidConfig", `cannot read the configuration file ${path}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function documentIn(text: string, where: string): unknown {
  if (text.length > MOST_BYTES) throw tooLarge(where);
  try {
    const document = parseDocument(text);
    const problem = document.errors[0];
    if (problem) throw new Error(problem.message.split("\n", 1)[0]?.replace(/:$/, ""));
    return document.toJS({ maxAliasCount: MOST_ALIASES });
  } catch (error) {
    const deep = error instanceof RangeError;
    const words = deep ? "it is nested too deeply" : messageOf(error);
    throw new UserError("InvalidConfig", `${where} is not YAML that can be read: ${words}`, { cause: error });
  }
}

function tooLarge(where: string): UserError {
  return new UserError("InvalidConfig", `${where} is larger than ${MOST_BYTES / 1024} KiB, which is the most`);
}
