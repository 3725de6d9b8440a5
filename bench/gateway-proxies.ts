/** The proxies that are compared: each is one process with one thread for requests, on a port of its own, in front of the same origin. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { freePort } from "../src/platforms/local/up/ports.ts";
import { onEnd } from "./lib/cleanup.ts";
import { secretOf } from "./lib/listener.ts";
import { endProcess } from "./lib/processes.ts";

const HERE = import.meta.dirname;
const ROOT = resolve(HERE, "..");
const HOST = "127.0.0.1";
const READY_MS = 15_000;
/** As many idle connections to the origin as there may be requests at once. */
const KEPT = 256;

export interface Proxy {
  name: string;
  url: string;
  pid: number;
  version: string;
}

/** The proxies to compare with, and their Debian packages. */
export const RIVALS = [
  { name: "HAProxy", program: "haproxy", debian: "haproxy", start: startHaproxy },
  { name: "nginx", program: "nginx", debian: "nginx-light", start: startNginx },
] as const;

/** Debian keeps servers in directories that are not on every user's path. */
export async function findProgram(name: string): Promise<string | undefined> {
  const env = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin:/sbin` };
  const found = await promisify(execFile)("which", [name], { env }).catch(() => undefined);
  return found?.stdout.trim();
}

export function startOrigin(): Promise<{ port: number; pid: number }> {
  return startScript("gateway-origin.ts");
}

/** What Node's parts achieve without the gateway's work. */
export async function startBare(origin: number): Promise<Proxy> {
  const { port, pid } = await startScript("gateway-bare.ts", String(origin));
  return { name: "bare", url: `http://${HOST}:${port}`, pid, version: process.version };
}

/** A program of the benchmark, which prints its port when it listens. */
async function startScript(file: string, ...args: string[]): Promise<{ port: number; pid: number }> {
  const child = begin(process.execPath, [join(HERE, file), ...args], "pipe");
  const [line] = (await once(createInterface({ input: child.stdout! }), "line", {
    signal: AbortSignal.timeout(READY_MS),
  })) as [string];
  return { port: Number(line), pid: child.pid! };
}

/**
 * The real gateway; its routes come from the file of a last run, because there is no controller here.
 *
 * @param origins port of each host
 * @param more what differs from its defaults; `controller`: the URL of a feed of routes, if there is one
 */
export async function startGateway(
  directory: string,
  origins: Record<string, number>,
  {
    controller,
    ...more
  }: { maxInFlightPerTenant?: number; maxConnectionsPerAddress?: number; controller?: string } = {},
): Promise<Proxy> {
  await mkdir(directory, { recursive: true });
  const file = (name: string) => join(directory, name);
  const routes = Object.entries(origins).map(([host, port]) => ({
    tenant: host.split(".")[0]!,
    hosts: [host],
    state: "serving",
    address: `${HOST}:${port}`,
    secret: secretOf(`${HOST}:${port}`),
    epoch: 1,
  }));
  await writeFile(file("routes.json"), JSON.stringify({ format: 1, routes }));
  await writeFile(file("token"), "nobody-reads-it\n", { mode: 0o600 });
  const config = {
    http: { host: HOST, port: 0 },
    https: null,
    controller: { url: controller ?? `http://${HOST}:${await freePort(HOST)}`, tokenFile: file("token") },
    routesFile: file("routes.json"),
    readyFile: file("gateway.ready.json"),
    metrics: { host: HOST, port: 0 },
    adminApi: false,
    maxBodyBytes: 104_857_600,
    parking: { maxRequests: 200, maxBytes: 8_388_608, maxSeconds: 30 },
    logFile: file("gateway.log"),
    ...more,
  };
  await writeFile(file("gateway.json"), JSON.stringify(config));
  const child = begin(process.execPath, [join(ROOT, "src/gateway/main.ts"), "--config", file("gateway.json")]);
  for (const deadline = Date.now() + READY_MS; ; await sleep(50)) {
    const ready = await readFile(config.readyFile, "utf8").catch(() => undefined);
    if (ready !== undefined)
      return {
        name: "gateway",
        url: (JSON.parse(ready) as { http: string }).http,
        pid: child.pid!,
        version: process.version,
      };
    if (Date.now() > deadline || child.exitCode !== null) throw new Error("the gateway did not come up");
  }
}

async function startHaproxy(program: string, directory: string, hosts: string[], origin: number): Promise<Proxy> {
  const port = await freePort(HOST);
  const map = join(directory, "haproxy.map");
  await writeFile(map, hosts.map((host) => `${host} shard\n`).join(""));
  const file = join(directory, "haproxy.cfg");
  await writeFile(
    file,
    `global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 900s
  option forwardfor
  option http-keep-alive
frontend gateway
  bind ${HOST}:${port}
  use_backend %[req.hdr(host),lower,map(${map},none)]
backend none
  http-request return status 404
backend shard
  http-reuse always
  server shard ${HOST}:${origin} pool-max-conn ${KEPT}
`,
  );
  const { stdout } = await promisify(execFile)(program, ["-v"]);
  return listening("HAProxy", begin(program, ["-db", "-f", file]), port, /version (\S+)/.exec(stdout)?.[1] ?? "?");
}

async function startNginx(program: string, directory: string, hosts: string[], origin: number): Promise<Proxy> {
  const port = await freePort(HOST);
  const file = join(directory, "nginx.conf");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${join(directory, `nginx-${name}`)};`,
  );
  await writeFile(
    file,
    `daemon off; master_process off; worker_processes 1; pid ${join(directory, "nginx.pid")}; error_log ${join(directory, "nginx.log")} crit;
events { worker_connections 4000; }
http {
  access_log off; keepalive_requests 1000000000; ${temporary.join(" ")}
  map $host $shard { default ""; ${hosts.map((host) => `${host} shard;`).join(" ")} }
  upstream shard { server ${HOST}:${origin}; keepalive ${KEPT}; keepalive_requests 1000000000; }
  server {
    listen ${HOST}:${port};
    location / {
      if ($shard = "") { return 404; }
      proxy_pass http://$shard;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
    }
  }
}
`,
  );
  const { stderr } = await promisify(execFile)(program, ["-v"]);
  const child = begin(program, ["-c", file, "-p", directory]);
  return listening("nginx", child, port, /nginx\/(\S+)/.exec(stderr)?.[1] ?? "?");
}

/** Runs until the suite ends. */
function begin(program: string, args: string[], stdout: "pipe" | "ignore" = "ignore"): ChildProcess {
  const child = spawn(program, args, { stdio: ["ignore", stdout, "inherit"] });
  child.on("error", () => {}); // seen as a process without a pid
  if (child.pid === undefined) throw new Error(`cannot run ${program}`);
  onEnd(() => endProcess(child.pid!));
  return child;
}

async function listening(name: string, child: ChildProcess, port: number, version: string): Promise<Proxy> {
  for (const deadline = Date.now() + READY_MS; ; await sleep(50)) {
    if (await accepts(port)) return { name, url: `http://${HOST}:${port}`, pid: child.pid!, version };
    if (Date.now() > deadline || child.exitCode !== null) throw new Error(`${name} did not come up`);
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(port, HOST);
    socket.once("connect", () => done(true)).once("error", () => done(false));
    socket.once("connect", () => socket.destroy());
  });
}
