import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PEBBLE, pathOf } from "../../bin/go-tools.ts";
import { Authority } from "./authority.ts";
import { freePort } from "./free-port.ts";
import { until } from "./patience.ts";

const PROGRAM = process.env["PEBBLE"] ?? pathOf(PEBBLE);
export const HAS_PEBBLE = existsSync(PROGRAM);

export interface PebbleOptions {
  /** HOST:PORT of the DNS server that it asks. */
  dns: string;
  /** Where it looks for HTTP-01. */
  httpPort: number;
  /** Of certificates, in seconds. */
  validity?: number;
}

/** A real ACME server, which does what Let's Encrypt does, and now and then refuses a nonce. */
export class Pebble {
  readonly directory: string;
  /** PEM of its own server's authority, and of the one that it issues with. */
  readonly authorities: string;
  readonly #process: ChildProcess;
  readonly #files: string;
  readonly #output: string[];

  private constructor(directory: string, authorities: string, child: ChildProcess, files: string, output: string[]) {
    this.directory = directory;
    this.authorities = authorities;
    this.#process = child;
    this.#files = files;
    this.#output = output;
  }

  static async start({ dns, httpPort, validity = 7_776_000 }: PebbleOptions): Promise<Pebble> {
    const files = await mkdtemp(join(tmpdir(), "pebble-"));
    const authority = await Authority.make("CN=Of Pebble's own server");
    const { certificate, key } = await authority.issue(["localhost"]);
    const [port, managementPort] = [await freePort(), await freePort()];
    const at = (name: string) => join(files, name);
    await writeFile(at("server.crt"), certificate);
    await writeFile(at("server.key"), key);
    const pebble = {
      listenAddress: `127.0.0.1:${port}`,
      managementListenAddress: `127.0.0.1:${managementPort}`,
      certificate: at("server.crt"),
      privateKey: at("server.key"),
      httpPort,
      tlsPort: 1,
      ocspResponderURL: "",
      externalAccountBindingRequired: false,
      retryAfter: { authz: 1, order: 1 },
      profiles: { default: { description: "as long as the test wants", validityPeriod: validity } },
    };
    await writeFile(at("config.json"), JSON.stringify({ pebble }));
    const child = spawn(PROGRAM, ["-config", at("config.json"), "-dnsserver", dns, "-strict"], {
      env: { ...process.env, PEBBLE_VA_NOSLEEP: "1" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const output: string[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => output.push(String(text)));
    const ask = (path: string) => get(managementPort, path, authority.pem);
    const root = await until(
      "Pebble answers",
      () => ask("/roots/0"),
      undefined,
      () => output.join(""),
    );
    return new Pebble(`https://localhost:${port}/dir`, `${authority.pem}\n${root}`, child, files, output);
  }

  get log(): string {
    return this.#output.join("");
  }

  /** New orders that it got. */
  get orders(): number {
    // Not the requests: some are refused for their nonce, and sent again.
    return (this.log.match(/Added order "/g) ?? []).length;
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const ended = once(this.#process, "exit");
      this.#process.kill("SIGTERM");
      await ended;
    }
    await rm(this.#files, { recursive: true, force: true });
  }
}

function get(port: number, path: string, ca: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const call = request({ host: "127.0.0.1", port, path, ca, servername: "localhost" }, (response) => {
      let text = "";
      response.on("data", (chunk) => (text += String(chunk)));
      response.on("end", () => resolve(text));
    });
    call.on("error", reject);
    call.end();
  });
}
