import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { vi } from "vitest";
import { EXIT } from "../../src/cli/errors.ts";
import { run } from "../../src/cli/run.ts";
import { API_TOKEN, startApiUnderTest } from "../api/api-under-test.ts";

export const MAIN = resolve(import.meta.dirname, "../../src/cli/main.ts");

export interface CliResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface CliInput {
  stdin?: string;
  env?: Record<string, string>;
}

/** Starts the CLI as a process of its own, with an environment of the test's making. */
export function startCli(args: string[], env: Record<string, string> = {}): ChildProcess {
  const { PATH = "", NODE_COMPILE_CACHE = "" } = process.env;
  return spawn(process.execPath, [MAIN, ...args], { env: { PATH, NODE_COMPILE_CACHE, ...env }, stdio: "pipe" });
}

export async function runCli(args: string[], { stdin = "", env = {} }: CliInput = {}): Promise<CliResult> {
  const child = startCli(args, env);
  const output = { stdout: "", stderr: "" };
  child.stdout?.on("data", (chunk: Buffer) => (output.stdout += chunk.toString()));
  child.stderr?.on("data", (chunk: Buffer) => (output.stderr += chunk.toString()));
  child.stdin?.on("error", () => {});
  child.stdin?.end(stdin);
  const code = await new Promise<number | null>((done) => void child.once("close", (status) => done(status)));
  return { code, ...output };
}

/** A command may set one of its own. */
const ownCode = () => process.exitCode;

let turn: Promise<unknown> = Promise.resolve();

/** Runs the CLI in this process, which takes no second to start; one command after the other. */
function runHere(args: string[]): Promise<CliResult> {
  const result = turn.then(async () => {
    const said = { stdout: "", stderr: "" };
    const streams = ["stdout", "stderr"] as const;
    for (const name of streams)
      vi.spyOn(process[name], "write").mockImplementation((text) => ((said[name] += String(text)), true));
    const terminals = [process.stdin, process.stdout, process.stderr].map((stream) => [stream, stream.isTTY] as const);
    for (const [stream] of terminals) stream.isTTY = false;
    const { exitCode } = process;
    process.exitCode = undefined;
    try {
      const code = await run(args);
      return { code: code === EXIT.ok ? Number(ownCode() ?? code) : code, ...said };
    } finally {
      process.exitCode = exitCode;
      for (const [stream, isTTY] of terminals) stream.isTTY = isTTY;
      for (const name of streams) vi.mocked(process[name].write).mockRestore();
    }
  });
  turn = result.catch(() => {});
  return result;
}

/**
 * A cluster of nothing but objects behind the real API, and a data directory that leads to it.
 * @param here whether commands without input of their own run in this process
 */
export async function startClusterUnderTest({ here = false } = {}) {
  const api = await startApiUnderTest();
  const data = await mkdtemp(join(tmpdir(), "shards-cli-"));
  const write = async (name: string, text: string) => {
    await writeFile(join(data, name), text, { mode: 0o600 });
    return join(data, name);
  };
  await write("api-token", `${API_TOKEN}\n`);
  const file = { apiUrl: api.url, tokenFile: "api-token", pid: process.pid, gateway: { http: "", https: "" } };
  await write("cluster.json", JSON.stringify(file));
  const withoutPath = (text: string) => text.replaceAll(data, "DATA").replaceAll(api.url, "API");
  return {
    api,
    service: api.service,
    data,
    write,
    /** Runs the CLI against the cluster; paths and addresses of this run are left out of its output. */
    async cli(args: string[], input?: CliInput): Promise<CliResult> {
      const { code, stdout, stderr } = await (here && !input
        ? runHere([...args, "--data", data])
        : runCli([...args, "--data", data], input));
      return { code, stdout: withoutPath(stdout), stderr: withoutPath(stderr) };
    },
    /** What a command prints when all goes well. */
    async printed(...args: string[]): Promise<string> {
      const { code, stdout, stderr } = await this.cli(args);
      if (code !== 0) throw new Error(`${args.join(" ")} ended with ${code}: ${stderr}`);
      return `\n${stdout}`;
    },
    async close() {
      await api.close();
      await rm(data, { recursive: true, force: true });
    },
  };
}
export type ClusterUnderTest = Awaited<ReturnType<typeof startClusterUnderTest>>;
