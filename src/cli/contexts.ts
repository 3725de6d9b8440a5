import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { CliError, EXIT } from "./errors.ts";

/** A cluster that is spoken of by a name: one on this machine, or an API with what leads to its token. */
export type Context =
  | { data: string }
  | { server: string; tokenFile: string; caFile?: string }
  | { server: string; tokenCommand: string; caFile?: string };

export interface Contexts {
  /** The one that commands use where nothing else is said. */
  current?: string;
  contexts: Record<string, Context>;
}

const NAME = /^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$/;

/** As the XDG base directories have it. Secrets are not in it: it names the file or the command that gives a token. */
export function contextsFile(env: NodeJS.ProcessEnv = process.env): string {
  const { SYNAPSE_SHARDS_CONTEXTS: own, XDG_CONFIG_HOME: home } = env;
  return own || join(home || join(homedir(), ".config"), "synapse-shards", "contexts.json");
}

/** @throws CliError where the file is there and cannot be understood */
export async function readContexts(file = contextsFile()): Promise<Contexts> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return { contexts: {} };
    throw new CliError(EXIT.failed, `cannot read ${file}: ${(error as Error).message}`, { cause: error });
  }
  const found = parsed(text);
  if (!isContexts(found))
    throw new CliError(EXIT.failed, `${file} is damaged: correct it, or remove it and add its contexts again`);
  return found;
}

export async function writeContexts(contexts: Contexts, file = contextsFile()): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  const beside = `${file}.${process.pid}.new`;
  await writeFile(beside, `${JSON.stringify(contexts, null, 2)}\n`, { mode: 0o600 });
  await rename(beside, file);
}

/** @throws CliError usage */
export function checkedName(name: string): string {
  if (NAME.test(name)) return name;
  throw new CliError(
    EXIT.usage,
    `a context's name is 1 to 63 of a-z, 0-9, ".", "_" and "-", but ${JSON.stringify(name)} was given`,
  );
}

/** @throws CliError not found, naming those that there are */
export function contextNamed({ contexts }: Contexts, name: string): Context {
  const found = Object.hasOwn(contexts, name) ? contexts[name] : undefined;
  if (found) return found;
  const names = Object.keys(contexts);
  const known = names.length === 0 ? "there are none; add one with `context add`" : `there are: ${names.join(", ")}`;
  throw new CliError(EXIT.notFound, `there is no context ${JSON.stringify(name)}; ${known}`);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isContexts(value: unknown): value is Contexts {
  if (typeof value !== "object" || value === null) return false;
  const { current, contexts } = value as Partial<Record<keyof Contexts, unknown>>;
  if (current !== undefined && typeof current !== "string") return false;
  return typeof contexts === "object" && contexts !== null && Object.values(contexts).every(isContext);
}

function isContext(value: unknown): value is Context {
  if (typeof value !== "object" || value === null) return false;
  const { data, server, tokenFile, tokenCommand, caFile } = value as Record<string, unknown>;
  if (typeof data === "string") return server === undefined;
  const isToken = typeof tokenFile === "string" || typeof tokenCommand === "string";
  return typeof server === "string" && isToken && (caFile === undefined || typeof caFile === "string");
}
