import { writeFile } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { stringify } from "yaml";
import { type BackOff, HOST, Peer, type PeerOptions } from "./peer.ts";

const often = { per_second: 10_000, burst_count: 10_000 };

/** Names under .localhost are this machine (RFC 6761), which not every resolver knows. */
const WITH_LOCALHOST = `
import runpy, socket
find = socket.getaddrinfo
def getaddrinfo(host, *args, **more):
    name = host.decode() if isinstance(host, bytes) else str(host)
    return find("127.0.0.1" if name.endswith(".localhost") else host, *args, **more)
socket.getaddrinfo = getaddrinfo
runpy.run_module("synapse.app.homeserver", run_name="__main__")
`;

/** A plain Synapse. */
export class SynapsePeer extends Peer {
  readonly #python: string;

  private constructor(python: string, options: PeerOptions) {
    super(options);
    this.#python = python;
  }

  static async start(options: PeerOptions & { python: string }): Promise<SynapsePeer> {
    const peer = new SynapsePeer(options.python, options);
    await peer.start();
    return peer;
  }

  /** By its database. */
  backOffs(): BackOff[] {
    const database = new DatabaseSync(this.file("homeserver.db"), { readOnly: true });
    try {
      return database
        .prepare("SELECT destination, failure_ts FROM destinations WHERE retry_interval > 0")
        .all()
        .map((row) => ({ destination: String(row["destination"]), since: Number(row["failure_ts"]) }));
    } finally {
      database.close();
    }
  }

  protected async prepare(): Promise<{ program: string; args: string[] }> {
    await writeFile(this.file("homeserver.yaml"), stringify(this.#config()), { mode: 0o600 });
    const args = ["-c", WITH_LOCALHOST, "-c", this.file("homeserver.yaml")];
    const keys = await this.spawn(this.#python, [...args, "--generate-keys"]);
    await new Promise((done) => keys.once("close", done));
    return { program: this.#python, args };
  }

  #config(): Record<string, unknown> {
    return {
      server_name: this.name,
      pid_file: this.file("pid"),
      listeners: [
        {
          port: this.port,
          tls: true,
          type: "http",
          bind_addresses: [HOST],
          resources: [{ names: ["client", "federation"] }],
        },
      ],
      tls_certificate_path: this.file("tls.crt"),
      tls_private_key_path: this.file("tls.key"),
      database: { name: "sqlite3", args: { database: this.file("homeserver.db") } },
      media_store_path: this.file("media"),
      signing_key_path: this.file("signing.key"),
      registration_shared_secret: this.secret,
      macaroon_secret_key: this.secret,
      form_secret: this.secret,
      report_stats: false,
      trusted_key_servers: [],
      // Everything is on this machine, with certificates of no authority.
      federation_ip_range_blacklist: [],
      federation_verify_certificates: false,
      rc_message: often,
      rc_joins: { local: often, remote: often },
      // One user of it may be invited by many tenants.
      rc_invites: { per_room: often, per_user: often, per_issuer: often },
      rc_federation: { window_size: 1000, sleep_limit: 10_000, reject_limit: 10_000, concurrent: 100 },
    };
  }
}
