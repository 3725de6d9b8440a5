import { spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { accessSync, constants, openSync, closeSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { delimiter, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "undici";
import { parse } from "yaml";
import { freePort } from "../../tests/support/free-port.ts";
import { onEnd } from "./cleanup.ts";
import { ObjectClient } from "./object-client.ts";
import { endProcess, isAlive } from "./processes.ts";

const CRDS = resolve(import.meta.dirname, "../../charts/synapse-shards/crds");
const READY_MS = 120_000;

/** Where the programs are that make a Kubernetes API. */
export interface Programs {
  etcd: string;
  apiServer: string;
}

/** By the variables ETCD and KUBE_APISERVER, else in PATH. @returns what is missing, in words, where one is not there */
export function findPrograms(env: NodeJS.ProcessEnv = process.env): Programs | { missing: string } {
  const etcd = programOf(env, "ETCD", "etcd");
  const apiServer = programOf(env, "KUBE_APISERVER", "kube-apiserver");
  if (etcd !== undefined && apiServer !== undefined) return { etcd, apiServer };
  const names = etcd === undefined ? ["etcd (or ETCD=PATH)"] : [];
  if (apiServer === undefined) names.push("kube-apiserver (or KUBE_APISERVER=PATH)");
  return { missing: `not in PATH: ${names.join(", ")}; setup-envtest, or a release of Kubernetes, has them` };
}

function programOf(env: NodeJS.ProcessEnv, variable: string, name: string): string | undefined {
  const given = env[variable];
  const places = given ? [given] : (env["PATH"] ?? "").split(delimiter).map((directory) => join(directory, name));
  return places.find((place) => {
    try {
      accessSync(place, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** An etcd and an API server of one's own on the loopback interface, and nothing else: no nodes, no controllers but ours. */
export class ControlPlane {
  readonly etcd: number;
  readonly apiServer: number;
  readonly url: string;
  /** As an administrator, whose requests no fairness of the API server holds up. */
  readonly client: ObjectClient;
  readonly #directory: string;
  readonly #etcdUrl: string;
  readonly #token: string;

  private constructor(parts: {
    directory: string;
    etcd: number;
    apiServer: number;
    url: string;
    etcdUrl: string;
    tokens: Tokens;
  }) {
    this.#directory = parts.directory;
    this.etcd = parts.etcd;
    this.apiServer = parts.apiServer;
    this.url = parts.url;
    this.#etcdUrl = parts.etcdUrl;
    this.#token = parts.tokens.controller;
    // The API server makes its own certificate.
    const dispatcher = new Agent({ connections: 64, connect: { rejectUnauthorized: false }, bodyTimeout: 0 });
    this.client = new ObjectClient(parts.url, parts.tokens.admin, dispatcher);
  }

  static async start(directory: string, programs: Programs): Promise<ControlPlane> {
    await mkdir(directory, { recursive: true });
    const tokens = await writeTokens(directory);
    const [client, peer, port] = [await freePort(), await freePort(), await freePort()];
    const [etcdUrl, peerUrl] = [`http://127.0.0.1:${client}`, `http://127.0.0.1:${peer}`];
    const etcd = start(directory, programs.etcd, [
      `--data-dir=${join(directory, "etcd")}`,
      `--listen-client-urls=${etcdUrl}`,
      `--advertise-client-urls=${etcdUrl}`,
      `--listen-peer-urls=${peerUrl}`,
      `--initial-advertise-peer-urls=${peerUrl}`,
      `--initial-cluster=default=${peerUrl}`,
      `--quota-backend-bytes=${8 * 1024 ** 3}`,
    ]);
    onEnd(() => endProcess(etcd));
    const apiServer = start(directory, programs.apiServer, [
      `--etcd-servers=${etcdUrl}`,
      "--bind-address=127.0.0.1",
      `--secure-port=${port}`,
      `--cert-dir=${join(directory, "tls")}`,
      "--advertise-address=127.0.0.1",
      "--endpoint-reconciler-type=none",
      "--service-cluster-ip-range=10.96.0.0/16",
      "--authorization-mode=AlwaysAllow",
      `--token-auth-file=${join(directory, "tokens.csv")}`,
      // Shards' pods have service accounts, which a controller that is not here would make.
      "--disable-admission-plugins=ServiceAccount",
      `--service-account-key-file=${join(directory, "sa.pub")}`,
      `--service-account-signing-key-file=${join(directory, "sa.key")}`,
      "--service-account-issuer=https://scale.localhost",
    ]);
    onEnd(() => endProcess(apiServer));
    const url = `https://127.0.0.1:${port}`;
    const plane = new ControlPlane({ directory, etcd, apiServer, url, etcdUrl, tokens });
    await plane.#ready();
    await plane.#defineResources();
    return plane;
  }

  /** A kubeconfig with the rights of a controller, whose requests are queued as a service account's are. */
  async kubeconfig(): Promise<string> {
    const file = join(this.#directory, "kubeconfig");
    const config = {
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "scale", cluster: { server: this.url, "insecure-skip-tls-verify": true } }],
      users: [{ name: "controller", user: { token: this.#token } }],
      contexts: [{ name: "scale", context: { cluster: "scale", user: "controller" } }],
      "current-context": "scale",
    };
    await writeFile(file, JSON.stringify(config), { mode: 0o600 });
    return file;
  }

  /** Writes that etcd has carried out. */
  async etcdWrites(): Promise<number> {
    const text = await (await fetch(`${this.#etcdUrl}/metrics`)).text();
    return Number(/^etcd_(?:debugging_)?mvcc_put_total (\S+)/m.exec(text)?.[1] ?? Number.NaN);
  }

  /** Bytes of etcd's file that are in use. */
  async etcdBytes(): Promise<number> {
    const text = await (await fetch(`${this.#etcdUrl}/metrics`)).text();
    return Number(/^etcd_mvcc_db_total_size_in_use_in_bytes (\S+)/m.exec(text)?.[1] ?? Number.NaN);
  }

  /** Requests that the API server has answered, by verb and resource; its own to itself too. */
  async requests(): Promise<Map<string, number>> {
    const counts = new Map<string, number>();
    const text = await this.client.text("/metrics");
    for (const [, labels = "", value] of text.matchAll(/^apiserver_request_total\{(.*)\} (\S+)$/gm)) {
      const label = (name: string) => new RegExp(`(?:^|,)${name}="([^"]*)"`).exec(labels)?.[1] ?? "";
      const subresource = label("subresource");
      const key = `${label("verb")} ${label("resource")}${subresource === "" ? "" : `/${subresource}`}`;
      counts.set(key, (counts.get(key) ?? 0) + Number(value));
    }
    return counts;
  }

  async #ready(): Promise<void> {
    for (const deadline = Date.now() + READY_MS; ; await sleep(200)) {
      const isReady = await this.client.text("/readyz").then(
        () => true,
        () => false,
      );
      if (isReady) return;
      for (const [name, pid] of [["etcd", this.etcd] as const, ["kube-apiserver", this.apiServer] as const])
        if (!(await isAlive(pid))) throw new Error(`${name} ended: ${await this.#lastWords(name)}`);
      if (Date.now() > deadline)
        throw new Error(`no API server within ${READY_MS / 1000} s: ${await this.#lastWords("kube-apiserver")}`);
    }
  }

  async #lastWords(name: string): Promise<string> {
    const lines = (await readFile(join(this.#directory, `${name}.log`), "utf8")).trim().split("\n");
    return lines.slice(-3).join(" | ");
  }

  async #defineResources(): Promise<void> {
    const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for (const file of await readdir(CRDS)) {
      const definition = parse(await readFile(join(CRDS, file), "utf8")) as { metadata: { name: string } };
      await this.client.create(path, definition);
      for (const deadline = Date.now() + READY_MS; ; await sleep(100)) {
        const found = await this.client.get<Definition>(`${path}/${definition.metadata.name}`);
        if (found.status?.conditions?.some(({ type, status }) => type === "Established" && status === "True")) break;
        if (Date.now() > deadline) throw new Error(`${definition.metadata.name} is not established`);
      }
    }
  }
}

interface Definition {
  status?: { conditions?: { type: string; status: string }[] };
}

interface Tokens {
  admin: string;
  controller: string;
}

async function writeTokens(directory: string): Promise<Tokens> {
  const keys = generateKeyPairSync("rsa", {
    modulusLength: 2048,
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
  });
  const tokens = { admin: randomBytes(16).toString("hex"), controller: randomBytes(16).toString("hex") };
  const rows = [
    `${tokens.admin},admin,1,"system:masters"`,
    `${tokens.controller},system:serviceaccount:scale:controller,2,"system:serviceaccounts,system:serviceaccounts:scale"`,
  ];
  await writeFile(join(directory, "tokens.csv"), `${rows.join("\n")}\n`, { mode: 0o600 });
  await writeFile(join(directory, "sa.key"), keys.privateKey, { mode: 0o600 });
  await writeFile(join(directory, "sa.pub"), keys.publicKey);
  return tokens;
}

/** What it prints goes to a file of the program's name. */
function start(directory: string, program: string, args: string[]): number {
  const name = args.some((arg) => arg.startsWith("--etcd-servers")) ? "kube-apiserver" : "etcd";
  const log = openSync(join(directory, `${name}.log`), "a");
  // Programs that are several in one are told apart by the name that they are called by.
  const child = spawn(program, args, { argv0: name, stdio: ["ignore", log, log], cwd: directory });
  closeSync(log);
  child.on("error", () => {});
  if (child.pid === undefined) throw new Error(`${program} cannot be started`);
  return child.pid;
}
