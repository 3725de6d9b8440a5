/**
 * `node bin/run.mjs bench/flames.ts DIRECTORY`: where the time of a shard in use, of its starts, and of the gateway goes, as flame graphs.
 * Needs `py-spy` (PyPI), `inferno-flamegraph` (crates.io: `cargo install inferno`) and `wrk` on the PATH, and the right to trace processes.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import { foldedOf, type CpuProfile } from "./lib/folded.ts";
import { cleanUp, onEnd } from "./lib/cleanup.ts";
import { endProcess } from "./lib/processes.ts";
import { World } from "./lib/world.ts";
import { startGateway, startOrigin } from "./gateway-proxies.ts";
import { atRate, LoadUser } from "./load-client.ts";
import { runWrk } from "./load-wrk.ts";

const TENANTS = 25;
const IN_USE = 5;
const SECONDS = 30;
const SAMPLES_PER_SECOND = 200;
const HOSTS = 50;
const CONNECTIONS = 64;

async function main(): Promise<number> {
  const [directory] = process.argv.slice(2);
  if (directory === undefined) {
    console.error("usage: node bin/run.mjs bench/flames.ts DIRECTORY");
    return 2;
  }
  await mkdir(directory, { recursive: true });
  try {
    await World.with(console.log, (world) => shard(world, directory));
    await gateway(directory);
    return 0;
  } finally {
    await cleanUp();
  }
}

/** In use by some of its tenants, and while one after another is stopped and started. */
async function shard(world: World, directory: string): Promise<void> {
  const shard = await world.shard("shard");
  const tenants = await world.tenants("tenant", TENANTS);
  const urls = await shard.startAll(tenants);
  const agent = new Agent({ connections: 64 });
  const ending = new AbortController();
  const load: Promise<unknown>[] = [];
  for (const [index, tenant] of tenants.slice(0, IN_USE).entries()) {
    const [person] = await world.users(tenant, urls[index]!, 1);
    await person!.close();
    const user = LoadUser.withToken({ url: urls[index]! }, agent, person!.accessToken);
    const room = await user.createRoom();
    await user.sync(0);
    load.push(
      atRate(4, ending.signal, () => user.send(room)),
      atRate(4, ending.signal, () => user.sync(0)),
      atRate(1, ending.signal, () => LoadUser.withToken({ url: urls[index]! }, agent, person!.accessToken).sync(0)),
    );
  }
  await record(shard.pid, join(directory, "shard-in-use"), "A shard in use");
  ending.abort();
  await Promise.all(load);
  await agent.destroy();
  let isOver = false;
  const recording = record(shard.pid, join(directory, "shard-starts"), "Starts and stops of tenants").finally(() => {
    isOver = true;
  });
  for (let index = IN_USE; !isOver; index = index + 1 < TENANTS ? index + 1 : IN_USE) {
    await shard.stopTenant(tenants[index]!, 0);
    await shard.start(tenants[index]!);
  }
  await recording;
  await shard.stop();
}

/** At its most, in front of an origin that answers at once. */
async function gateway(directory: string): Promise<void> {
  const place = await mkdtemp(join(tmpdir(), "flames-"));
  onEnd(() => rm(place, { recursive: true, force: true }));
  const origin = await startOrigin();
  const hosts = Array.from({ length: HOSTS }, (_, index) => `tenant-${index}.example`);
  process.env["NODE_OPTIONS"] = `--cpu-prof --cpu-prof-dir=${place}`;
  const proxy = await startGateway(
    join(place, "gateway"),
    Object.fromEntries(hosts.map((host) => [host, origin.port])),
  );
  delete process.env["NODE_OPTIONS"];
  await runWrk({ url: proxy.url, hosts, connections: CONNECTIONS, seconds: SECONDS }, place);
  await endProcess(proxy.pid);
  const found = (await readdir(place)).filter(
    (name) => name.includes(`.${proxy.pid}.`) && name.endsWith(".cpuprofile"),
  );
  if (found[0] === undefined) throw new Error("the gateway left no profile");
  const folded = foldedOf(JSON.parse(await readFile(join(place, found[0]), "utf8")) as CpuProfile);
  await draw(folded, join(directory, "gateway"), "The gateway at its most");
}

async function record(pid: number, file: string, title: string): Promise<void> {
  const args = ["record", "--pid", `${pid}`, "--duration", `${SECONDS}`, "--rate", `${SAMPLES_PER_SECOND}`];
  await sleep(1_000);
  await ended(
    spawn("py-spy", [...args, "--format", "raw", "--output", `${file}.folded`, "--nonblocking"], {
      stdio: ["ignore", "ignore", "inherit"],
    }),
  );
  await draw(await readFile(`${file}.folded`, "utf8"), file, title);
}

async function draw(folded: string, file: string, title: string): Promise<void> {
  await writeFile(`${file}.folded`, folded);
  const child = spawn("inferno-flamegraph", ["--title", title, "--minwidth", "0.3"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.end(folded);
  const chunks: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  await ended(child);
  await writeFile(`${file}.svg`, Buffer.concat(chunks));
  console.log(`${file}.svg`);
}

async function ended(child: ChildProcess): Promise<void> {
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`${child.spawnfile} ended with ${code}`);
}

process.exitCode = await main();
