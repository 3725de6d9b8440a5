import { spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { request } from "undici";
import { withConnection } from "../../../src/database/connection.ts";
import { DEFAULT_RELEASE, ensurePostgres, ensureSynapse } from "../../../src/platforms/local/toolchain/toolchain.ts";
import { freePort } from "../../../src/platforms/local/up/ports.ts";
import { until } from "../../support/patience.ts";
import type { Cluster } from "./cluster.ts";

const PASSWORD = "of the plain one";

export interface PlainSynapse {
  url: string;
  end(): Promise<void>;
}

/** What the administrator of the cluster's PostgreSQL logs in with. */
export async function serverOf(cluster: Cluster) {
  const { postgres } = JSON.parse(await readFile(join(cluster.dataDir, "controller.json"), "utf8")) as {
    postgres: { host: string; port: number; user: string; passwordFile: string };
  };
  return { ...postgres, password: (await readFile(postgres.passwordFile, "utf8")).trim() };
}

/** An empty database for a Synapse that is no tenant, on the cluster's PostgreSQL server. @returns psycopg2's arguments */
export async function databaseBeside(cluster: Cluster, name: string): Promise<Record<string, unknown>> {
  const server = await serverOf(cluster);
  await withConnection(server, "postgres", async (client) => {
    await client.query(`CREATE ROLE ${name} LOGIN PASSWORD '${name}'`);
    await client.query(`CREATE DATABASE ${name} OWNER ${name} ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0`);
  });
  return { host: server.host, port: server.port, user: name, password: name, database: name };
}

/** Follows the README of an exported archive, with the cluster's PostgreSQL server standing for another one. */
export async function startFromArchive(cluster: Cluster, directory: string): Promise<PlainSynapse> {
  const server = await serverOf(cluster);
  await withConnection(server, "postgres", async (client) => {
    await client.query(`CREATE ROLE synapse LOGIN PASSWORD '${PASSWORD}'`);
    await client.query("CREATE DATABASE synapse OWNER synapse ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0");
  });
  const { binDir } = await ensurePostgres();
  const to = ["--host", server.host, "--port", String(server.port), "--username=synapse", "--dbname=synapse"];
  const how = ["--no-owner", "--no-privileges", "--exit-on-error"];
  await run(join(binDir, "pg_restore"), [...how, ...to, join(directory, "database.dump")]);
  const file = join(directory, "homeserver.yaml");
  const port = await freePort("127.0.0.1");
  const config = (await readFile(file, "utf8"))
    .replace("password: CHANGE-ME", `password: ${PASSWORD}`)
    .replace("host: localhost", `host: ${server.host}`)
    .replace("port: 5432", `port: ${server.port}`)
    .replace("port: 8008", `port: ${port}`);
  await writeFile(file, config);
  const { python } = await ensureSynapse(DEFAULT_RELEASE);
  const args = ["-m", "synapse.app.homeserver", "--config-path", "homeserver.yaml"];
  const child = spawn(python, args, { cwd: directory, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
  const url = `http://127.0.0.1:${port}`;
  const end = async () => {
    const ended = new Promise((done) => child.once("exit", done));
    if (child.exitCode !== null) return;
    child.kill("SIGTERM");
    await ended;
  };
  const isUp = async () => {
    if (child.exitCode !== null) throw new Error(`Synapse ended with ${child.exitCode}:\n${output.slice(-4_000)}`);
    const answer = await request(`${url}/_matrix/client/versions`).catch(() => undefined);
    await answer?.body.dump();
    return answer?.statusCode === 200;
  };
  await until("the plain Synapse is up", isUp, undefined, () => output.slice(-4_000));
  return { url, end };
}

async function run(program: string, args: string[]): Promise<void> {
  const child = spawn(program, args, { env: { PGPASSWORD: PASSWORD }, stdio: ["ignore", "ignore", "pipe"] });
  let words = "";
  child.stderr.on("data", (chunk) => (words += chunk));
  const code = await new Promise((done) => child.once("close", done));
  if (code !== 0) throw new Error(`${program} ended with ${String(code)}: ${words}`);
}
