import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { text as readAll } from "node:stream/consumers";
import { contextNamed, readContexts, type Context } from "./contexts.ts";
import { CliError, EXIT } from "./errors.ts";

export interface ConnectOptions {
  context?: string;
  data?: string;
  server?: string;
  tokenFile?: string;
  caFile?: string;
}

export interface RemoteAccess {
  server: string;
  token: () => Promise<string>;
  caFile?: string;
}

/** A cluster on this machine, found by its data directory, or an API elsewhere. */
export type Access = { data?: string; tokenFile?: string } | RemoteAccess;

/** A helper may ask a person, or another machine. */
const HELPER_TIMEOUT_MS = 60_000;

/**
 * Which cluster a command is for. What is written on the command line comes before the environment, and that before the context
 * that is in use; without any, it is the cluster on this machine. @throws CliError
 */
export async function accessOf(options: ConnectOptions, env: NodeJS.ProcessEnv): Promise<Access> {
  const { context, data, server, tokenFile, caFile } = options;
  const given = [context && "--context", data && "--data", server && "--server"].filter((word) => word);
  if (given.length > 1) throw new CliError(EXIT.usage, `${given.join(" and ")} name clusters each; give one of them`);
  if (server !== undefined) return serverAccess(server, { tokenFile, caFile }, env, "--server");
  if (data !== undefined) return { data, ...(tokenFile === undefined ? {} : { tokenFile }) };
  if (context !== undefined) return contextAccess(contextNamed(await readContexts(), context), options);
  const { SYNAPSE_SHARDS_SERVER, SYNAPSE_SHARDS_CONTEXT, SYNAPSE_SHARDS_DATA } = env;
  if (SYNAPSE_SHARDS_SERVER)
    return serverAccess(SYNAPSE_SHARDS_SERVER, { tokenFile, caFile }, env, "$SYNAPSE_SHARDS_SERVER");
  if (SYNAPSE_SHARDS_CONTEXT) return contextAccess(contextNamed(await readContexts(), SYNAPSE_SHARDS_CONTEXT), options);
  const here = tokenFile === undefined ? {} : { tokenFile };
  if (SYNAPSE_SHARDS_DATA) return here;
  const contexts = await readContexts();
  return contexts.current === undefined ? here : contextAccess(contextNamed(contexts, contexts.current), options);
}

function contextAccess(context: Context, { tokenFile, caFile }: ConnectOptions): Access {
  if ("data" in context) return { data: context.data, ...(tokenFile === undefined ? {} : { tokenFile }) };
  const authority = caFile ?? context.caFile;
  const token = (): Promise<string> => {
    if (tokenFile !== undefined) return readToken(tokenFile);
    return "tokenFile" in context ? readToken(context.tokenFile) : askHelper(context.tokenCommand);
  };
  return { server: context.server, token, ...(authority === undefined ? {} : { caFile: authority }) };
}

function serverAccess(
  server: string,
  { tokenFile, caFile }: Pick<ConnectOptions, "tokenFile" | "caFile">,
  { SYNAPSE_SHARDS_TOKEN, SYNAPSE_SHARDS_TOKEN_FILE, SYNAPSE_SHARDS_CA_FILE }: NodeJS.ProcessEnv,
  where: string,
): RemoteAccess {
  checkedServer(server, where);
  const authority = caFile ?? (SYNAPSE_SHARDS_CA_FILE || undefined);
  const token = (): Promise<string> => {
    if (tokenFile !== undefined) return readToken(tokenFile);
    if (SYNAPSE_SHARDS_TOKEN) return Promise.resolve(SYNAPSE_SHARDS_TOKEN);
    if (SYNAPSE_SHARDS_TOKEN_FILE) return readToken(SYNAPSE_SHARDS_TOKEN_FILE);
    throw new CliError(
      EXIT.usage,
      `${where} needs a token too: --token-file FILE, $SYNAPSE_SHARDS_TOKEN_FILE or $SYNAPSE_SHARDS_TOKEN`,
    );
  };
  return { server, token, ...(authority === undefined ? {} : { caFile: authority }) };
}

/** @throws CliError usage */
export function checkedServer(server: string, where: string): string {
  if (URL.canParse(server) && /^https?:$/.test(new URL(server).protocol)) return server;
  throw new CliError(EXIT.usage, `${where} must be a URL such as http://127.0.0.1:8010, but ${server} was given`);
}

/** The first line that the helper prints. It may ask the person, at the terminal and on stderr. @throws CliError */
async function askHelper(command: string): Promise<string> {
  const signal = AbortSignal.timeout(HELPER_TIMEOUT_MS);
  const helper = spawn(command, { shell: true, stdio: ["inherit", "pipe", "inherit"], signal });
  const ended = once(helper, "close") as Promise<[number | null]>;
  try {
    const [printed, [status]] = await Promise.all([readAll(helper.stdout), ended]);
    const [token = ""] = printed.trim().split("\n");
    if (status !== 0) throw new Error(`it ended with ${status}`);
    if (token === "") throw new Error("it printed no token");
    return token;
  } catch (error) {
    const why = signal.aborted ? `no answer within ${HELPER_TIMEOUT_MS / 1000} s` : (error as Error).message;
    throw new CliError(EXIT.failed, `the command for the token failed: ${command}: ${why}`, { cause: error });
  }
}

export function readToken(file: string): Promise<string> {
  return readNamed(file, "the API token");
}

/** @throws CliError where it cannot be read */
export async function readNamed(file: string, what: string): Promise<string> {
  try {
    return (await readFile(file, "utf8")).trim();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === "EACCES" ? "only the user who started the cluster can read it" : message;
    throw new CliError(EXIT.failed, `cannot read ${what} ${file}: ${why}`, { cause: error });
  }
}
