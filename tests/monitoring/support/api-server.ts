import { spawn, type ChildProcess } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "./prometheus.ts";
import { onPath, run } from "./tools.ts";

const CHART = resolve(import.meta.dirname, "../../../charts/synapse-shards");
const READY_MS = 60_000;
const TOKEN = "token-for-tests";

export interface ApiServerPrograms {
  etcd: string;
  apiServer: string;
}

export function apiServerPrograms(): ApiServerPrograms | undefined {
  const [etcd, apiServer] = [onPath("etcd"), onPath("kube-apiserver")];
  return etcd && apiServer && onPath("kubectl") ? { etcd, apiServer } : undefined;
}

/** A real API server on loopback with nothing behind it: it takes and checks objects, and nobody acts on them. */
export class ApiServer {
  readonly #directory: string;
  readonly #processes: ChildProcess[];
  readonly #kubeconfig: string;

  private constructor(directory: string, processes: ChildProcess[]) {
    this.#directory = directory;
    this.#processes = processes;
    this.#kubeconfig = join(directory, "kubeconfig");
  }

  static async start({ etcd, apiServer }: ApiServerPrograms): Promise<ApiServer> {
    const directory = await mkdtemp(join(tmpdir(), "apiserver-"));
    const [client, peer, port] = [await freePort(), await freePort(), await freePort()];
    const at = (name: string) => join(directory, name);
    const keys = generateKeyPairSync("rsa", {
      modulusLength: 2048,
      publicKeyEncoding: { type: "spki", format: "pem" },
      privateKeyEncoding: { type: "pkcs8", format: "pem" },
    });
    await writeFile(at("key"), keys.privateKey, { mode: 0o600 });
    await writeFile(at("tokens.csv"), `${TOKEN},test,test,system:masters\n`);
    await writeFile(at("kubeconfig"), JSON.stringify(kubeconfigOf(port)), { mode: 0o600 });
    const etcdUrl = `http://127.0.0.1:${client}`;
    const etcdArgs = [
      `--data-dir=${at("etcd")}`,
      `--listen-client-urls=${etcdUrl}`,
      `--advertise-client-urls=${etcdUrl}`,
    ];
    const processes = [
      spawn(etcd, [...etcdArgs, `--listen-peer-urls=http://127.0.0.1:${peer}`], { stdio: "ignore", cwd: directory }),
      spawn(
        apiServer,
        [
          `--etcd-servers=${etcdUrl}`,
          `--cert-dir=${at("certificates")}`,
          `--secure-port=${port}`,
          "--bind-address=127.0.0.1",
          "--service-cluster-ip-range=10.0.0.0/24",
          "--service-account-issuer=https://kubernetes.default.svc",
          `--service-account-key-file=${at("key")}`,
          `--service-account-signing-key-file=${at("key")}`,
          `--token-auth-file=${at("tokens.csv")}`,
          "--authorization-mode=RBAC",
          // There is no controller that makes namespaces' accounts.
          "--disable-admission-plugins=ServiceAccount",
        ],
        { stdio: "ignore", cwd: directory },
      ),
    ];
    const server = new ApiServer(directory, processes);
    await server.#untilReady();
    return server;
  }

  kubectl(...args: string[]): Promise<string> {
    return run("kubectl", ["--kubeconfig", this.#kubeconfig, ...args], { maxBuffer: 64 * 1024 * 1024 }).then(
      ({ stdout }) => stdout,
    );
  }

  /** Installs the chart; nothing of it comes up. */
  async install(namespace: string, release: string): Promise<void> {
    const args = ["install", release, CHART, "--namespace", namespace, "--create-namespace"];
    await run("helm", [...args, "--kubeconfig", this.#kubeconfig]);
  }

  async stop(): Promise<void> {
    for (const child of this.#processes.toReversed()) {
      const ended = new Promise((done) => child.once("exit", done));
      if (child.exitCode === null && child.signalCode === null && child.kill("SIGKILL")) await ended;
    }
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #untilReady(): Promise<void> {
    const deadline = Date.now() + READY_MS;
    for (;;) {
      const ready = await this.kubectl("get", "--raw", "/readyz").catch((error: Error) => error.message);
      if (ready === "ok") return;
      if (Date.now() > deadline) {
        await this.stop();
        throw new Error(`the API server did not become ready: ${ready}`);
      }
      await sleep(200);
    }
  }
}

function kubeconfigOf(port: number): object {
  return {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "test", cluster: { server: `https://127.0.0.1:${port}`, "insecure-skip-tls-verify": true } }],
    users: [{ name: "test", user: { token: TOKEN } }],
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    "current-context": "test",
  };
}
