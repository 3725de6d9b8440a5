import { execFile } from "node:child_process";
import { resolve } from "node:path";
import { applyCrds } from "../../kubernetes/support/crds.ts";
import { NETWORK, postgres } from "../../kubernetes/support/servers.ts";
import { run } from "./tools.ts";

const CHART = resolve(import.meta.dirname, "../../../charts/synapse-shards");
const TAG = "1.163.2";

/** A namespace of its own with the chart, a PostgreSQL and a tenant `a` in it; what there was goes with it. */
export class Installation {
  readonly namespace = `monitoring-${Math.random().toString(36).slice(2, 8)}`;
  readonly release = "synapse-shards";

  kubectl(...args: string[]): Promise<string> {
    return run("kubectl", ["--namespace", this.namespace, ...args], { maxBuffer: 64 * 1024 * 1024 }).then(
      ({ stdout }) => stdout,
    );
  }

  apply(...objects: object[]): Promise<void> {
    return new Promise((done, failed) => {
      const child = execFile("kubectl", ["--namespace", this.namespace, "apply", "-f", "-"], (error) =>
        error ? failed(error) : done(),
      );
      child.stdin!.end(JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }));
    });
  }

  async install(values: object): Promise<void> {
    await applyCrds();
    await run("kubectl", ["create", "namespace", this.namespace]);
    await this.apply(...postgres());
    const args = [
      "install",
      this.release,
      CHART,
      "--namespace",
      this.namespace,
      "--skip-crds",
      "--wait",
      "--timeout",
      "3m",
    ];
    const all = { ...NETWORK, ...values };
    const settings = Object.entries(all).flatMap(([name, value]) => ["--set-json", `${name}=${JSON.stringify(value)}`]);
    await run("helm", [...args, ...settings]);
    await this.kubectl("wait", "pod/postgres", "--for=condition=Ready", "--timeout=60s");
  }

  /** Makes its database and its Secret, and waits until it runs. */
  async createTenant(name: string): Promise<void> {
    const statements = [
      `CREATE ROLE "${name}" LOGIN PASSWORD 'pw'`,
      `CREATE DATABASE "${name}" OWNER "${name}" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'`,
    ];
    for (const statement of statements) await this.sql(statement);
    const database = { host: `postgres.${this.namespace}.svc.cluster.local`, user: name, password: "pw", dbname: name };
    await this.apply(
      {
        apiVersion: "v1",
        kind: "Secret",
        metadata: { name: `${name}-synapse-tenant`, labels: { "synapse-shards.io/tenant": name } },
        stringData: {
          "homeserver.yaml": JSON.stringify({
            database: { name: "psycopg2", args: database },
            // No S3 server is here for its media.
            enable_media_repo: false,
            enable_registration: true,
            enable_registration_without_verification: true,
          }),
          "signing.key": "ed25519 a_0001 hwVOQXMTWpPh0b0ZYHvsgsJPTHtlXeXvlcDkKJnAPXQ",
          "macaroon-secret-key": "macaroon",
          "form-secret": "form",
          "registration-shared-secret": "registration",
        },
      },
      {
        apiVersion: "synapse-shards.io/v1alpha1",
        kind: "SynapseTenant",
        metadata: { name },
        spec: { clusterId: this.release, serverName: `${name}.example`, image: { tag: TAG } },
      },
    );
    await this.kubectl("wait", `synapsetenant/${name}`, "--for=condition=Ready", "--timeout=180s");
  }

  /** As the superuser of the namespace's PostgreSQL. */
  async sql(statement: string): Promise<void> {
    await this.kubectl(
      "exec",
      "postgres",
      "--",
      "psql",
      "postgresql://postgres:test@127.0.0.1/postgres",
      "-qc",
      statement,
    );
  }

  async remove(): Promise<void> {
    // While there is a controller to let go of them: both kinds have a finalizer.
    await this.kubectl("delete", "synapsetenants", "--all", "--timeout=60s").catch(() => {});
    await this.kubectl("delete", "synapseshards", "--all", "--timeout=60s").catch(() => {});
    await run("helm", ["uninstall", this.release, "--namespace", this.namespace, "--wait"]).catch(() => {});
    await run("kubectl", ["delete", "namespace", this.namespace, "--timeout=120s"]);
  }
}
