import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { temporaryDirectory } from "./support.ts";

const ROOT = resolve(import.meta.dirname, "../../..");

/** Stands for npm: notes that it was called, takes a moment, and "installs" the packaged Node. */
const NPM = `
  const fs = require("node:fs");
  fs.appendFileSync("npm-calls", process.argv.slice(2).join(" ") + "\\n");
  if (fs.existsSync("npm-fails")) { console.error("no network"); process.exit(7); }
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
  const directory = "node_modules/node-" + process.platform + "-" + process.arch + "/bin";
  fs.mkdirSync(directory, { recursive: true });
  try { fs.symlinkSync(${JSON.stringify(process.execPath)}, directory + "/node"); } catch {}
`;

/** Stands for the CLI. */
const MAIN = `
  const args: string[] = process.argv.slice(2);
  console.log(JSON.stringify({ args, node: process.execPath, child: process.connected === true }));
  if (args[0] === "exit") process.exitCode = Number(args[1]);
  if (args[0] === "wait") {
    const timer = setInterval(() => {}, 1000);
    process.on("SIGTERM", () => { console.log("SIGTERM"); clearInterval(timer); process.exitCode = 5; process.disconnect?.(); });
  }
`;

/** As an older Node would see itself. */
const OLD_NODE = `data:text/javascript,Object.defineProperty(process,"versions",{value:{...process.versions,node:"20.20.0"}})`;

async function checkout(): Promise<string> {
  const root = await temporaryDirectory();
  cpSync(join(ROOT, "bin"), join(root, "bin"), { recursive: true });
  mkdirSync(join(root, "src/cli"), { recursive: true });
  writeFileSync(join(root, "src/cli/main.ts"), MAIN);
  writeFileSync(join(root, "package.json"), `{"type": "module"}`);
  writeFileSync(join(root, "package-lock.json"), "1");
  mkdirSync(join(root, "npm"));
  writeFileSync(join(root, "npm/package.json"), "{}");
  writeFileSync(join(root, "npm/npm-cli.js"), NPM);
  return root;
}

function run(
  root: string,
  args: string[],
  old = false,
): { process: ChildProcess; output(): string; ended: Promise<number | null> } {
  const node = old ? ["--import", OLD_NODE] : [];
  const child = spawn(process.execPath, [...node, join(root, "bin/synapse-shards.mjs"), ...args], {
    env: { ...process.env, npm_execpath: join(root, "npm/npm-cli.js") },
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
  return { process: child, output: () => output, ended: once(child, "close").then(([code]) => code as number | null) };
}

function calls(root: string): number {
  return existsSync(join(root, "npm-calls"))
    ? readFileSync(join(root, "npm-calls"), "utf8").trim().split("\n").length
    : 0;
}

test("packages are installed once, by one of those who want them, and again when the lock file has changed", async () => {
  // Prevents: two npm processes that delete each other's files; a checkout that runs on yesterday's packages.
  const root = await checkout();
  const both = [run(root, ["one"]), run(root, ["two"])];
  expect(await Promise.all(both.map(({ ended }) => ended))).toEqual([0, 0]);
  expect(calls(root)).toBe(1);
  expect(both.map(({ output }) => output()).join("")).toContain("waiting for it");
  expect(existsSync(join(root, "node_modules/.bin/synapse-shards"))).toBe(true);
  writeFileSync(join(root, "package-lock.json"), "2");
  expect(await run(root, []).ended).toBe(0);
  expect(await run(root, []).ended).toBe(0);
  expect(calls(root)).toBe(2);
});

test("an installation that failed says why, and is tried again", async () => {
  // Prevents: half of node_modules taken for all of it; a lock that nobody gives back.
  const root = await checkout();
  writeFileSync(join(root, "npm-fails"), "");
  const failed = run(root, []);
  expect(await failed.ended).toBe(1);
  expect(failed.output()).toContain("no network");
  const again = run(root, []);
  expect(await again.ended).toBe(1);
  expect(calls(root)).toBe(2);
});

test("a lock whose owner was killed does not keep anybody", async () => {
  // Prevents: waiting forever after a Ctrl-C during the installation.
  const root = await checkout();
  mkdirSync(join(root, ".npm-install.lock"));
  const gone = spawn("/bin/true");
  await once(gone, "exit");
  writeFileSync(join(root, ".npm-install.lock/pid"), String(gone.pid));
  const { ended } = run(root, []);
  expect(await ended).toBe(0);
  expect(existsSync(join(root, ".npm-install.lock"))).toBe(false);
});

test("a Node that is new enough runs the program itself", async () => {
  // Prevents: a second process, and half a second, for every command.
  const root = await checkout();
  const cli = run(root, ["exit", "3", "--flag", "a b"]);
  expect(await cli.ended).toBe(3);
  expect(
    JSON.parse(
      cli
        .output()
        .split("\n")
        .find((line) => line.startsWith("{"))!,
    ),
  ).toMatchObject({ args: ["exit", "3", "--flag", "a b"], child: false });
});

test("an older one hands over to the packaged one, and passes signals and the exit code on", async () => {
  // Prevents: a SIGTERM that ends the wrapper and leaves the cluster; failures that look like success.
  const root = await checkout();
  const failing = run(root, ["exit", "3"], true);
  expect(await failing.ended).toBe(3);
  expect(failing.output()).toContain(`"child":true`);
  const waiting = run(root, ["wait"], true);
  await expect.poll(() => waiting.output()).toContain(`"wait"`);
  waiting.process.kill("SIGTERM");
  expect(await waiting.ended).toBe(5);
  expect(waiting.output().match(/SIGTERM/g)).toHaveLength(1);
});

test("without any Node that does, it says what is needed", async () => {
  // Prevents: a syntax error in TypeScript as the answer to an old Node.
  const root = await checkout();
  writeFileSync(join(root, "npm/npm-cli.js"), `require("node:fs").mkdirSync("node_modules")`);
  const cli = run(root, [], true);
  expect(await cli.ended).toBe(1);
  expect(cli.output()).toContain("Node 24 or newer is needed");
});

test("packages that are shared through a link are left as they are", async () => {
  const root = await checkout();
  const shared = await temporaryDirectory();
  writeFileSync(join(shared, "theirs"), "");
  symlinkSync(shared, join(root, "node_modules"));
  const cli = run(root, ["x"]);
  expect(await cli.ended).toBe(1);
  expect(cli.output()).toContain("node_modules is a link");
  expect(existsSync(join(root, "npm-calls"))).toBe(false);
  expect(existsSync(join(shared, "theirs"))).toBe(true);
});
