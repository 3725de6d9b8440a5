import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { stringify } from "yaml";
import { dendriteConfig, dendriteKey } from "./dendrite.ts";
import { type BackOff, HOST, Peer, type PeerOptions } from "./peer.ts";

const METRICS = { username: "metrics", password: randomBytes(16).toString("hex") };
const BACKING_OFF = /^dendrite_federationapi_destination_queues_backing_off (\d+)$/m;
/** Go's resolver reads no names under .localhost from anywhere but this file, which the process gets in a mount namespace of its own. */
const WITH_HOSTS = 'mount --bind "$1" /etc/hosts && shift && exec "$@"';

/** A Dendrite, which is another implementation, in Go. Linux with user namespaces alone. */
export class DendritePeer extends Peer {
  readonly #program: string;
  readonly #reaches: string[];
  #since: number | undefined;

  private constructor(program: string, reaches: string[], options: PeerOptions) {
    super(options);
    this.#program = program;
    this.#reaches = reaches;
  }

  /** @param options with the names of servers on this machine that it is to find */
  static async start(options: PeerOptions & { program: string; reaches: string[] }): Promise<DendritePeer> {
    const peer = new DendritePeer(options.program, options.reaches, options);
    await peer.start();
    return peer;
  }

  /** By its metrics, which only have a number. It backs off from two seconds on. */
  async backOffs(): Promise<BackOff[]> {
    const { username, password } = METRICS;
    const metrics = await this.get("/metrics", `Basic ${btoa(`${username}:${password}`)}`);
    const count = Number(BACKING_OFF.exec(metrics)?.[1] ?? Number.NaN);
    if (Number.isNaN(count)) throw new Error(`${this.name} does not say how many servers it has backed off from`);
    this.#since = count > 0 ? (this.#since ?? Date.now()) : undefined;
    return Array.from({ length: count }, () => ({ destination: undefined, since: this.#since! }));
  }

  protected async prepare(): Promise<{ program: string; args: string[] }> {
    const hosts = [
      `${HOST} localhost`,
      ...[...this.#reaches, this.name.split(":")[0]].map((name) => `${HOST} ${name}`),
    ];
    await writeFile(this.file("hosts"), `${hosts.join("\n")}\n`);
    await writeFile(this.file("matrix_key.pem"), dendriteKey(), { mode: 0o600 });
    await writeFile(this.file("dendrite.yaml"), stringify(this.#config()), { mode: 0o600 });
    const listen = ["--http-bind-address", `${HOST}:0`, "--https-bind-address", `${HOST}:${this.port}`];
    const tls = ["--tls-cert", this.file("tls.crt"), "--tls-key", this.file("tls.key")];
    const dendrite = [this.#program, "--config", this.file("dendrite.yaml"), ...listen, ...tls];
    const namespaces = ["--user", "--map-root-user", "--mount", "sh", "-c", WITH_HOSTS, "sh", this.file("hosts")];
    return { program: "unshare", args: [...namespaces, ...dendrite] };
  }

  #config(): Record<string, unknown> {
    return dendriteConfig({
      name: this.name,
      keyFile: this.file("matrix_key.pem"),
      secret: this.secret,
      directory: this.file(""),
      database: (component) => ({ connection_string: `file:${this.file(`${component}.db`)}` }),
      more: {
        global: { metrics: { enabled: true, basic_auth: METRICS } },
        // Everything is on this machine, with certificates of no authority.
        federation: { disable_tls_validation: true, prefer_direct_fetch: true },
      },
    });
  }
}
