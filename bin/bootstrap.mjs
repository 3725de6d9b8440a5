import { spawn, spawnSync } from "node:child_process";
import module from "node:module";
import { createHash } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const MODULES = join(ROOT, "node_modules");
/** Inside node_modules, which only its owner can write to, because its content is executed. */
const COMPILE_CACHE = join(MODULES, ".cache/node-compile");
const STAMP = join(MODULES, ".synapse-shards-lock-hash");
const INSTALL_LOCK = join(ROOT, ".npm-install.lock");
/** TypeScript runs directly, which older versions cannot do. */
const NODE_MAJOR = 24;
/** An installation takes a minute or two on a slow line; a lock that is older than this has lost its owner. */
const LOCK_STALE_MS = 15 * 60_000;

/** Installs the npm packages if package-lock.json has changed since the last installation. Ends the process on failure. */
export function ensureDependencies() {
  if (current()) return;
  // npm would empty the directory that it leads to, which others use.
  if (isLink(MODULES))
    fail(
      `${MODULES} is a link, and its packages are not those of package-lock.json: install them where it leads to, or remove the link`,
    );
  lockInstallation();
  let problem;
  try {
    if (!current()) install();
  } catch (error) {
    problem = error.message;
  } finally {
    rmSync(INSTALL_LOCK, { recursive: true, force: true });
  }
  if (problem) fail(problem);
}

function isLink(path) {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
}

function current() {
  try {
    return readFileSync(STAMP, "utf8") === lockHash();
  } catch {
    return false;
  }
}

function lockHash() {
  const hash = createHash("sha256");
  // The Node binary is a package too, and depends on the machine.
  return hash
    .update(readFileSync(join(ROOT, "package-lock.json")))
    .update(`${process.platform}-${process.arch}`)
    .digest("hex");
}

function install() {
  process.stderr.write("Installing npm packages (once, about a minute) …\n");
  const startedAt = Date.now();
  const npm = npmCommand();
  const { status, error, stdout, stderr } = spawnSync(
    npm[0],
    // Exactly what the lock file says. No package needs an install script.
    [
      ...npm.slice(1),
      "ci",
      "--ignore-scripts",
      "--include=dev",
      "--include=optional",
      "--no-audit",
      "--no-fund",
      "--loglevel=error",
    ],
    {
      cwd: ROOT,
      encoding: "utf8",
      maxBuffer: 64 * 1024 * 1024,
      // When npm calls us, we inherit settings that were meant for that call, such as --prefix or --global.
      env: Object.fromEntries(
        Object.entries(withoutNodeSettings(process.env)).filter(
          ([name]) => !/^npm_/i.test(name) || /registry|proxy|cafile|userconfig/i.test(name),
        ),
      ),
    },
  );
  if (error || status !== 0) {
    process.stderr.write(`${stdout ?? ""}${stderr ?? ""}`);
    throw new Error(
      `\`npm ci\` failed (${error ? error.message : `exit code ${status}`}); fix what it reports above and start again`,
    );
  }
  linkCommand();
  writeFileSync(STAMP, lockHash());
  process.stderr.write(`Installed npm packages (${Math.round((Date.now() - startedAt) / 1000)} s)\n`);
}

/** npm does not link a package's own command into its own node_modules; with the link, `npx synapse-shards` needs no detour. */
function linkCommand() {
  const link = join(MODULES, ".bin/synapse-shards");
  rmSync(link, { force: true });
  mkdirSync(dirname(link), { recursive: true });
  symlinkSync("../../bin/synapse-shards.mjs", link);
}

/** The npm that called us, otherwise the one on the path. */
function npmCommand() {
  const caller = process.env.npm_execpath;
  return caller && caller.endsWith("npm-cli.js") ? [process.execPath, caller] : ["npm"];
}

/** Two installations at once would delete each other's files. */
function lockInstallation() {
  const owner = join(INSTALL_LOCK, "pid");
  for (let said = false; ;) {
    try {
      mkdirSync(INSTALL_LOCK);
      writeFileSync(owner, String(process.pid));
      return;
    } catch (error) {
      if (error.code !== "EEXIST") fail(`cannot install npm packages in ${ROOT}: ${error.message}`);
    }
    if (isStale(owner)) {
      rmSync(INSTALL_LOCK, { recursive: true, force: true });
      continue;
    }
    if (!said) process.stderr.write("Another process installs the npm packages; waiting for it …\n");
    said = true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  }
}

function isStale(owner) {
  let age;
  try {
    age = Date.now() - statSync(INSTALL_LOCK).mtimeMs;
  } catch {
    return false; // It is gone by now: the next attempt gets it.
  }
  let pid;
  try {
    pid = Number(readFileSync(owner, "utf8"));
  } catch {
    pid = 0;
  }
  // It was made, but its owner has not been recorded yet, or never will be.
  if (!pid) return age > 5_000;
  return age > LOCK_STALE_MS || !lives(pid);
}

function lives(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** This process's Node if it is new enough, otherwise the one from the npm package. Ends the process if there is neither. */
export function node24() {
  if (Number(process.versions.node.split(".")[0]) >= NODE_MAJOR) return process.execPath;
  const binary = join(MODULES, `node-${process.platform}-${process.arch}`, "bin/node");
  if (existsSync(binary)) return binary;
  return fail(
    `Node ${NODE_MAJOR} or newer is needed, this is ${process.version}, and there is no packaged one for ${process.platform}-${process.arch}: install Node ${NODE_MAJOR} and run this with it`,
  );
}

/** Runs a program to its end with Node 24, in this process if it is one. Signals and the exit code are passed on. */
export async function runWithNode24(program, args) {
  const node = node24();
  // Halves the time that a program takes to start, including this process's children.
  if (node === process.execPath) {
    module.enableCompileCache(COMPILE_CACHE);
    process.argv = [node, program, ...args];
    await import(pathToFileURL(program).href);
    return;
  }
  // Through the channel, the program learns when this process has been killed.
  const env = { ...withoutNodeSettings(process.env), NODE_COMPILE_CACHE: COMPILE_CACHE };
  const child = spawn(node, [program, ...args], { stdio: ["inherit", "inherit", "inherit", "ipc"], env });
  // The terminal sends Ctrl-C to both; the program counts signals in quick succession as one.
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(name, () => child.kill(name));
  child.on("error", (error) => fail(`cannot run ${node}: ${error.message}`));
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code);
    // It was ended by a signal, so we end by the same one: our caller may look at it.
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

/** What is set for other programs on Node, such as NODE_OPTIONS, takes effect before a program's first line can refuse it. */
function withoutNodeSettings(environment) {
  return Object.fromEntries(
    Object.entries(environment).filter(([name]) => !name.startsWith("NODE_") || name === "NODE_EXTRA_CA_CERTS"),
  );
}

function fail(message) {
  process.stderr.write(`error: ${message}\n`);
  process.exit(1);
}
