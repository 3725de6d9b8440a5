/**
 * What of the environment we were started in reaches our own processes: what is named here, and nothing else. Variables such as
 * PGSSLMODE, PYTHONHOME, NODE_OPTIONS or a proxy's address were set for other programs, and would change what ours do.
 */

import { getCompileCacheDir } from "node:module";
import { dirname } from "node:path";

/** For every process. */
const SYSTEM = ["PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ"];
/** For those that speak with a person at a terminal. */
const TERMINAL = ["TERM", "COLORTERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CI", "DEBUG"];
/** For those that download packages: the way to the registry is the operator's to say. */
const DOWNLOAD = [
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "ALL_PROXY",
  "NO_PROXY",
  "http_proxy",
  "https_proxy",
  "all_proxy",
  "no_proxy",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR",
  "REQUESTS_CA_BUNDLE",
  "XDG_CONFIG_HOME",
  "XDG_CACHE_HOME",
  "PIP_INDEX_URL",
  "PIP_EXTRA_INDEX_URL",
  "PIP_FIND_LINKS",
  "PIP_NO_INDEX",
  "PIP_TRUSTED_HOST",
  "PIP_CERT",
  "PIP_CLIENT_CERT",
  "PIP_PROXY",
  "PIP_TIMEOUT",
  "PIP_RETRIES",
  "PIP_CONFIG_FILE",
  "PIP_CACHE_DIR",
];
const OURS = /^SYNAPSE_SHARDS_[A-Z_]+$/;
/** UTF-8 whatever the locale of the terminal is; sorting and messages as programs expect them. */
const LOCALE = { LANG: "C.UTF-8", LC_ALL: "C.UTF-8" };
/** By default glibc keeps freed memory apart for each of Node's threads, which is 12 MiB a process. */
const MALLOC = { MALLOC_ARENA_MAX: "2" };

type Environment = Record<string, string | undefined>;

/** For a process that has nothing to ask anybody outside. */
export function systemEnvironment(from: Environment = process.env): Record<string, string> {
  return { ...chosen(SYSTEM, from), ...LOCALE };
}

/** For a Python of ours: no other Python's packages, no user's, none of the directory it runs in. */
export function pythonEnvironment(from: Environment = process.env): Record<string, string> {
  return {
    ...systemEnvironment(from),
    PYTHONUTF8: "1",
    PYTHONNOUSERSITE: "1",
    PYTHONSAFEPATH: "1",
    PYTHONUNBUFFERED: "1",
  };
}

/** For pip. */
export function pipEnvironment(from: Environment = process.env): Record<string, string> {
  return {
    ...pythonEnvironment(from),
    ...chosen(DOWNLOAD, from),
    PIP_DISABLE_PIP_VERSION_CHECK: "1",
    PIP_NO_INPUT: "1",
    PIP_ROOT_USER_ACTION: "ignore",
  };
}

/**
 * For parts of the cluster that run on Node. They install releases, so they get what pip needs.
 * @param compileCache this process's own, which halves the time that a Node process takes to start; null without one
 */
export function nodeEnvironment(
  from: Environment = process.env,
  compileCache = getCompileCacheDir() ?? null,
): Record<string, string> {
  const environment = { ...MALLOC, ...systemEnvironment(from), ...chosen(DOWNLOAD, from), ...ours(from) };
  // Node keeps a directory for each of its versions below the one it is told.
  return compileCache === null ? environment : { ...environment, NODE_COMPILE_CACHE: dirname(compileCache) };
}

/**
 * Takes everything else out of this process's own environment: libraries read it wherever they like, as `pg` does with PGOPTIONS.
 * Called first thing by each program.
 */
export function cleanOwnEnvironment(environment: Environment = process.env): void {
  const kept = new Set([...SYSTEM, ...TERMINAL, ...DOWNLOAD]);
  for (const name of Object.keys(environment)) if (!kept.has(name) && !OURS.test(name)) delete environment[name];
}

function chosen(names: readonly string[], from: Environment): Record<string, string> {
  return Object.fromEntries(names.flatMap((name) => (from[name] === undefined ? [] : [[name, from[name]]])));
}

function ours(from: Environment): Record<string, string> {
  return chosen(
    Object.keys(from).filter((name) => OURS.test(name)),
    from,
  );
}
