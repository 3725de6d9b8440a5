/** What a hostile process in one shard reaches: run as root and as an ordinary user. Prints its findings as JSON. */
import { chmodSync, copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findMeans } from "../../../src/platforms/local/launcher/confinement.ts";
import { ForkServers } from "../../../src/platforms/local/launcher/fork-server.ts";
import { LocalLauncher } from "../../../src/platforms/local/launcher/local-launcher.ts";
import { LocalPreparers } from "../../../src/platforms/local/launcher/local-preparers.ts";
import { TenantMedia } from "../../../src/platforms/local/launcher/tenant-media.ts";

const [directory = "", python = "", way = ""] = process.argv.slice(2);
const here = import.meta.dirname;
const data = join(directory, "data");
const runtime = join(data, "runtime");
process.umask(0o077);
mkdirSync(data);
chmodSync(data, 0o711);
mkdirSync(join(runtime, "multi_synapse"), { recursive: true });
for (const part of [runtime, join(runtime, "multi_synapse")]) chmodSync(part, 0o755);
for (const [from, name] of [
  [join(here, "multi_synapse/__main__.py"), "__main__.py"],
  [join(here, "multi_synapse/preload.py"), "preload.py"],
  [join(here, "multi_synapse/prepare.py"), "prepare.py"],
  ...["confine.py", "fork_server.py", "pinned.py", "release.py"].map(
    (file) => [resolve(here, "../../../multi_synapse", file), file] as const,
  ),
] as const) {
  const to = join(runtime, "multi_synapse", name);
  copyFileSync(from, to);
  chmodSync(to, 0o644);
}
writeFileSync(join(data, "store.db"), "the store");
writeFileSync(join(data, "postgres.password"), "the password");

const means = await findMeans({ python, helper: join(runtime, "multi_synapse/confine.py"), places: [data] });
const media = new TenantMedia(join(data, "media"), means.users);
const facts = { release: "1.163.2", schemaVersion: 1, schemaCompatVersion: 1 };
const forkServers = way === "forked" ? new ForkServers() : undefined;
const launcher = new LocalLauncher({
  directory: join(data, "shards"),
  runtimePath: runtime,
  installSynapse: async () => ({ python, facts }),
  confinement: { means, media, readable: [] },
  ...(forkServers ? { forkServers } : {}),
  warn: (sentence) => {
    throw new Error(sentence);
  },
});
const pids: Record<string, number> = {};

async function start(shard: string): Promise<void> {
  await launcher.start(shard, "1.163.2");
  for (let tries = 0; (await launcher.observe(shard)).state !== "running"; tries++) {
    if (tries > 300) throw new Error(`${shard}: ${readFileSync(join(data, "shards", shard, "output.log"), "utf8")}`);
    await sleep(50);
  }
  pids[shard] = Number(readFileSync(join(data, "shards", shard, "pid"), "utf8"));
}

/** What an expression gives in the process of a shard: a value's `repr`, or the name of an error. */
async function inside(shard: string, expression: string): Promise<string> {
  const run = join(data, "shards", shard, "run");
  rmSync(join(run, "answer"), { force: true });
  writeFileSync(join(run, "order.new"), expression);
  chmodSync(join(run, "order.new"), 0o644);
  renameSync(join(run, "order.new"), join(run, "order"));
  for (let tries = 0; tries < 500; tries++) {
    try {
      return readFileSync(join(run, "answer"), "utf8");
    } catch {
      await sleep(20);
    }
  }
  return "no answer";
}

/** What expressions give in a preparer. */
async function inPreparer(looks: Record<string, string>): Promise<Record<string, string>> {
  const confined = { means, directory: join(data, "preparers"), readable: [] };
  const preparer = await new LocalPreparers(runtime, async () => ({ python, facts }), confined).start("1.163.2");
  const database = { host: "", port: 1, user: "", password: "", dbname: JSON.stringify(Object.values(looks)) };
  const found = await preparer.template(database).then(
    () => "[]",
    (error: unknown) => (error as Error).message,
  );
  await preparer.close();
  const answers = JSON.parse(found) as string[];
  return Object.fromEntries(Object.keys(looks).map((title, n) => [title, answers[n] ?? "no answer"]));
}

const quote = JSON.stringify;
const read = (path: string) => `open(${quote(path)}).read()`;
const write = (path: string) => `open(${quote(path)}, "w").write("x")`;
const at = (...parts: string[]) => join(data, ...parts);

const findings: Record<string, string> = {};
try {
  // A tenant of an earlier version, whose media nobody but the user of that version can read.
  mkdirSync(at("media/old/local_content"), { recursive: true, mode: 0o700 });
  writeFileSync(at("media/old/local_content/file"), "old media");
  for (const shard of ["one", "two"]) await start(shard);
  await media.admit("one", "a");
  await media.admit("one", "old");
  await media.admit("two", "b");
  const look = async (title: string, shard: string, expression: string) =>
    void (findings[title] = await inside(shard, expression));

  await look("own media: made", "one", `os.makedirs(${quote(at("media/a/local"))})`);
  await look("own media: written", "one", write(at("media/a/local/file")));
  await look("own media: read", "one", read(at("media/a/local/file")));
  await look("own media of an earlier version", "one", read(at("media/old/local_content/file")));
  await look("own state: written", "one", write(at("shards/one/state/file")));
  await look("own token: read", "one", `len(${read(at("shards/one/token"))}) > 20`);
  await look("neighbour's media: written by itself", "two", write(at("media/b/file")));
  await look("neighbour's state: written by itself", "two", write(at("shards/two/state/file")));

  await look("neighbour's media", "one", read(at("media/b/file")));
  await look("neighbour's media, listed", "one", `os.listdir(${quote(at("media/.shards/two"))})`);
  await look("neighbour's state", "one", read(at("shards/two/state/file")));
  await look("neighbour's token", "one", read(at("shards/two/token")));
  await look("neighbour's settings", "one", read(at("shards/two/shard.json")));
  await look("neighbour's log", "one", read(at("shards/two/run/shard.log")));
  await look("the store", "one", read(at("store.db")));
  await look("the database's password", "one", read(at("postgres.password")));
  await look("the data directory, listed", "one", `os.listdir(${quote(data)})`);
  await look("all media, listed", "one", `os.listdir(${quote(at("media"))})`);
  await look("a file beside its own directories", "one", write(at("shards/one/evil")));
  await look("its own settings, changed", "one", write(at("runtime/multi_synapse/confine.py")));
  await look("a file of another user's", "one", write("/tmp/synapse-shards-evil"));
  const pid = String(pids["two"]);
  await look("neighbour's environment", "one", `open("/proc/${pid}/environ", "rb").read()`);
  await look("neighbour's memory", "one", `open("/proc/${pid}/mem", "rb").read(1)`);
  await look("neighbour's files by its process", "one", `os.listdir("/proc/${pid}/root")`);
  await look("neighbour ended", "one", `os.kill(${pid}, 9)`);
  await look("core size", "one", `__import__("resource").getrlimit(4)`);
  await look("more privileges", "one", `int(open("/proc/self/status").read().split("NoNewPrivs:")[1].split()[0])`);
  await look("capabilities", "one", `open("/proc/self/status").read().split("CapEff:")[1].split()[0]`);
  await look("memory is limited", "one", `__import__("resource").getrlimit(2)[1] > 0`);
  const limit = (name: string) => `__import__("resource").getrlimit(__import__("resource").RLIMIT_${name})[1]`;
  await look("descriptors are limited", "one", `0 < ${limit("NOFILE")} <= 65536`);
  // Of what the user runs elsewhere, too, where it is not the shard's own.
  const processes = means.users ? `0 < ${limit("NPROC")} <= 1024` : "True";
  await look("processes are limited, with a user of its own", "one", processes);

  Object.assign(
    findings,
    await inPreparer({
      "preparer: its own directory, written": `open(os.environ["HOME"] + "/x", "w").write("x")`,
      "preparer: more privileges": `int(open("/proc/self/status").read().split("NoNewPrivs:")[1].split()[0])`,
      "preparer: capabilities": `open("/proc/self/status").read().split("CapEff:")[1].split()[0]`,
      "preparer: media": read(at("media/b/file")),
      "preparer: a shard's token": read(at("shards/two/token")),
      "preparer: the store": read(at("store.db")),
      "preparer: the database's password": read(at("postgres.password")),
      "preparer: a shard's environment": `open("/proc/${pid}/environ", "rb").read()`,
    }),
  );

  // The tenant moves on, while the shard that had it keeps what it had open.
  await look("kept open", "one", `kept.setdefault("media", os.open(${quote(at("media/a/local"))}, os.O_RDONLY)) > 0`);
  await media.admit("two", "a");
  await look("moved: read by its new shard", "two", read(at("media/a/local/file")));
  await look("moved: written by its new shard", "two", write(at("media/a/local/file")));
  await look("moved: a new file", "two", write(at("media/a/local/more")));
  await look("moved: by the former shard", "one", read(at("media/a/local/file")));
  await look("moved: by what it had open", "one", `os.open("file", os.O_RDONLY, dir_fd=kept["media"]) > 0`);
  await look(
    "moved: written by what it had open",
    "one",
    `os.open("x", os.O_WRONLY | os.O_CREAT, dir_fd=kept["media"]) > 0`,
  );
  await launcher.stop("two", 0);
  await launcher.remove("two");
  await media.admit("one", "a");
  await look("back after its shard was removed", "one", read(at("media/a/local/more")));

  // What it puts in the place of files that we read.
  await look(
    "link for a log",
    "one",
    `os.remove(settings["logFile"]) or os.symlink(${quote(at("store.db"))}, settings["logFile"])`,
  );
  const lines: string[] = [];
  for await (const line of launcher.log("one", {})) lines.push(line);
  findings["its log, which leads to the store"] = lines.join("\n");
  await look("pipe for an announcement", "one", `os.remove(settings["readyFile"]) or os.mkfifo(settings["readyFile"])`);
  findings["its state"] = (await launcher.observe("one")).state;
  await media.remove("a");
  await look("removed", "one", `os.path.exists(${quote(at("media/a"))})`);
} finally {
  for (const shard of ["one", "two"]) await launcher.kill(shard);
  forkServers?.close();
}
process.stdout.write(JSON.stringify({ means, findings }));
