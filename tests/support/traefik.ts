import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { connect } from "node:net";
import { freePort } from "./free-port.ts";
import { until } from "./patience.ts";

const { XDG_CACHE_HOME: cache = join(homedir(), ".cache"), TRAEFIK } = process.env;
/** Where `tests/support/build-traefik` leaves it. */
const PROGRAM = TRAEFIK ?? join(cache, "synapse-shards-test/traefik-3.6.12");
export const HAS_TRAEFIK = existsSync(PROGRAM);

/** An ingress controller that is not ours, as a process of this machine; it asks the API server of KUBECONFIG for Ingresses, or routes of the Gateway API. */
export class Traefik {
  readonly port: number;
  readonly #child: ChildProcess;
  #said = "";

  private constructor(port: number, child: ChildProcess) {
    this.port = port;
    this.#child = child;
    child.stdout?.on("data", (chunk: Buffer) => (this.#said = `${this.#said}${chunk.toString()}`.slice(-10_000)));
  }

  /** @param namespace whose Ingresses count, of the class of the same name */
  static async start(namespace: string): Promise<Traefik> {
    const port = await freePort();
    return Traefik.#run(port, [
      `--entrypoints.websecure.address=127.0.0.1:${port}`,
      "--entrypoints.websecure.http.tls=true",
      "--providers.kubernetesingress=true",
      `--providers.kubernetesingress.ingressclass=${namespace}`,
      `--providers.kubernetesingress.namespaces=${namespace}`,
      // Services of the test lead to this machine.
      "--providers.kubernetesingress.allowexternalnameservices=true",
    ]);
  }

  /** The Gateway API's, for GatewayClasses of Traefik's and listeners at its port. */
  static async startForGateways(): Promise<Traefik> {
    const port = await freePort();
    return Traefik.#run(port, [`--entrypoints.web.address=127.0.0.1:${port}`, "--providers.kubernetesgateway=true"]);
  }

  static async #run(port: number, own: string[]): Promise<Traefik> {
    const args = [...own, "--global.checknewversion=false", "--global.sendanonymoususage=false", "--accesslog=true"];
    const traefik = new Traefik(port, spawn(PROGRAM, args, { stdio: ["ignore", "pipe", "inherit"] }));
    await until("Traefik listens", () => traefik.#listens());
    return traefik;
  }

  /** Its log and what it was asked, for a test that failed. */
  get said(): string {
    return this.#said;
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((done) => this.#child.once("exit", done));
    this.#child.kill("SIGKILL");
    await ended;
  }

  #listens(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(this.port, "127.0.0.1");
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });
  }
}

/** What an ingress controller needs beside Ingresses of a namespace: its class, and a certificate in the Secret `tls`. */
export function ingressObjects(
  className: string,
  { certificate, key }: { certificate: string; key: string },
): object[] {
  return [
    {
      kind: "Secret",
      apiVersion: "v1",
      metadata: { name: "tls" },
      type: "kubernetes.io/tls",
      stringData: { "tls.crt": certificate, "tls.key": key },
    },
    {
      kind: "IngressClass",
      apiVersion: "networking.k8s.io/v1",
      metadata: { name: className },
      spec: { controller: "traefik.io/ingress-controller" },
    },
  ];
}
