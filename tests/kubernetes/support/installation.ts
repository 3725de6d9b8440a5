import { randomBytes } from "node:crypto";
import { resolve } from "node:path";
import { Agent } from "undici";
import { PASSWORD, TestUser } from "../../e2e/support/matrix.ts";
import { Authority } from "../../support/authority.ts";
import { applyCrds } from "./crds.ts";
import { helm, kubectl, run } from "./run.ts";
import { NETWORK, postgres, POSTGRES_PASSWORD, s3, S3_ROOT } from "./servers.ts";
import { until } from "../../support/patience.ts";

const CHARTS = resolve(import.meta.dirname, "../../../charts");
const CLUSTER = "synapse-shards";

export interface TenantStatus {
  phase: string;
  reason: string;
  message: string;
  shard?: string;
  address?: string;
  epoch: number;
  move?: { step: string };
  lastMove?: { outcome: string; from: string; to: string; failedRequests: number };
  schemaRelease?: string;
  restored?: { backup: string };
  sleep?: { step: string; reason: string; preparedAt?: string };
  awake?: { since: string; reason: string };
}

interface TenantValues {
  serverName?: string;
  tag?: string;
  dedicated?: boolean;
  /** Of a dedicated one, by kind. */
  workers?: Record<string, { enabled: true; replicas?: number }>;
  /** More of homeserver.yaml. */
  config?: string;
  /** Where its clients go; otherwise the server name. */
  host?: string;
  /** Another name of the PostgreSQL server. */
  postgres?: string;
  /** The secret of its bucket's key, where that is to be another one. */
  media?: string;
  /** When it sleeps. */
  hibernation?: { mode: "Auto" | "Never"; afterIdleSeconds?: number };
}

interface InstallationOptions {
  keys?: "given" | "made";
  tls?: boolean;
  chartOf?: (name: string) => string;
}

const inRepository = (chart: string): string => `${CHARTS}/${chart}`;

/** Names of the nodes; the tests' servers are on the first. */
export async function nodes(): Promise<string[]> {
  return (await kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")).split(" ").toSorted();
}

/** A busy machine makes shards hot and statements long: no test wants its tenants moved or throttled for that. */
const UNBALANCED = { balancing: { cpuTarget: 0 }, cpuBudget: { databasePerTenant: 0 } };

/** The charts in namespaces of their own: a cluster of shards with a PostgreSQL and an S3 server, and a namespace for each tenant. */
export class Installation {
  readonly namespace: string;
  readonly #tenants = new Set<string>();
  #values: object = {};
  #agent: Agent | undefined;

  readonly #keys: object;
  readonly #isPrivate: boolean;
  readonly #chartOf: (name: string) => string;
  #authority = "";

  /**
   * @param options.keys whether tenants' keys are given or, for which each takes a pod, made
   * @param options.tls whether servers have certificates of an authority of their own, and tenants insist on them
   * @param options.chartOf where a chart is; by default, in the repository
   */
  constructor(name: string, { keys = "given", tls = false, chartOf = inRepository }: InstallationOptions = {}) {
    this.#keys = keys === "given" ? KEYS : {};
    this.#isPrivate = tls;
    this.#chartOf = chartOf;
    this.namespace = `${name}-${randomBytes(3).toString("hex")}`;
  }

  async install(values: object): Promise<void> {
    await applyCrds();
    await kubectl("create", "namespace", this.namespace);
    const [node] = await nodes();
    const tls = this.#isPrivate ? await this.#makeCertificates() : undefined;
    await this.apply([...postgres({ node, tls }), ...s3({ node, tls })]);
    await kubectl("-n", this.namespace, "wait", "--for=condition=Ready", "--timeout=240s", "pod/postgres", "pod/s3");
    await this.upgrade({ ...(tls === undefined ? {} : TRUST), ...values }, "install");
    const ip = await kubectl(
      "-n",
      this.namespace,
      "get",
      "service",
      `${CLUSTER}-gateway`,
      "-o",
      "jsonpath={.spec.clusterIP}",
    );
    this.#agent = new Agent({
      connections: 64,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: {
        lookup: (_host, options, done) => (options.all ? done(null, [{ address: ip, family: 4 }]) : done(null, ip, 4)),
      },
    });
  }

  /** @returns the name of a Secret with a certificate for the servers' Services */
  async #makeCertificates(): Promise<string> {
    const authority = await Authority.make();
    this.#authority = authority.pem;
    const { certificate, key } = await authority.issue(["postgres", "s3"].map((service) => this.#at(service)));
    const stringData = { "tls.crt": certificate, "tls.key": key };
    await this.apply([
      { apiVersion: "v1", kind: "Secret", metadata: { name: "servers" }, type: "kubernetes.io/tls", stringData },
      this.#trusted(),
    ]);
    return "servers";
  }

  #trusted(): object {
    const metadata = { name: TRUST.trustedCAs.configMap };
    return { apiVersion: "v1", kind: "ConfigMap", metadata, data: { "ca.crt": this.#authority } };
  }

  #at(service: string): string {
    return `${service}.${this.namespace}.svc.cluster.local`;
  }

  async upgrade(values: object, verb: "install" | "upgrade" = "upgrade"): Promise<void> {
    this.#values = {
      ...NETWORK,
      ...PATIENT,
      ...AWAKE,
      ...UNBALANCED,
      tenantPolicy: POLICY,
      ...this.#values,
      ...values,
    };
    const chart = [CLUSTER, this.#chartOf("synapse-shards"), "-n", this.namespace, "--skip-crds", "-f", "-"];
    await run("helm", [verb, ...chart, "--wait", "--timeout", "3m"], JSON.stringify(this.#values));
  }

  apply(objects: object[], namespace = this.namespace): Promise<string> {
    return run(
      "kubectl",
      ["-n", namespace, "apply", "-f", "-"],
      JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }),
    );
  }

  sql(statement: string, database = "postgres"): Promise<string> {
    const psql = [
      "env",
      `PGPASSWORD=${POSTGRES_PASSWORD}`,
      "psql",
      "-h",
      "127.0.0.1",
      "-U",
      "postgres",
      "-d",
      database,
    ];
    return kubectl("-n", this.namespace, "exec", "postgres", "--", ...psql, "-v", "ON_ERROR_STOP=1", "-tAc", statement);
  }

  s3Admin(...args: string[]): Promise<string> {
    const admin = ["versitygw", "admin", "--access", S3_ROOT.access, "--secret", S3_ROOT.secret];
    return kubectl(
      "-n",
      this.namespace,
      "exec",
      "s3",
      "--",
      ...admin,
      "--endpoint-url",
      `${this.#isPrivate ? "https" : "http"}://127.0.0.1:7070`,
      ...(this.#isPrivate ? ["--allow-insecure"] : []),
      ...args,
    );
  }

  async createDatabase(name: string): Promise<void> {
    await this.sql(`CREATE ROLE "${name}" LOGIN PASSWORD 'pw-${name}'`);
    await this.sql(`CREATE DATABASE "${name}" OWNER "${name}" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'`);
  }

  /** How a tenant is told of that, as psycopg2's arguments. */
  databaseOf(name: string): Record<string, unknown> {
    return { host: this.#at("postgres"), user: name, password: `pw-${name}`, dbname: name };
  }

  /** Makes database, bucket and release of a tenant. */
  async createTenant(name: string, values: TenantValues = {}): Promise<void> {
    await this.prepareTenant(name);
    await this.helmTenant(name, values, "install");
  }

  /** Makes database, bucket and namespace of a tenant, whose release the test installs. */
  async prepareTenant(name: string): Promise<void> {
    await this.createDatabase(name);
    await this.s3Admin("create-user", "-a", name, "-s", `secret-${name}`, "-r", "user");
    await this.s3Admin("create-bucket", "--owner", name, "--bucket", `bucket-${name}`);
    await kubectl("create", "namespace", this.namespaceOf(name));
    if (this.#isPrivate) await this.apply([this.#trusted()], this.namespaceOf(name));
    this.#tenants.add(name);
  }

  /** Values of a tenant's release: where its database and bucket are. */
  serversOf(name: string, host = this.#at("postgres"), secret = `secret-${name}`): { postgres: object; media: object } {
    return {
      postgres: {
        host,
        user: name,
        database: name,
        sslMode: this.#isPrivate ? "verify-full" : "disable",
        password: { value: `pw-${name}` },
      },
      media: {
        s3: {
          bucket: `bucket-${name}`,
          endpoint: `${this.#isPrivate ? "https" : "http"}://${this.#at("s3")}:7070`,
          region: "us-east-1",
          accessKeyId: { value: name },
          secretAccessKey: { value: secret },
        },
      },
    };
  }

  /** The release alone, where database, bucket and namespace are there. */
  async reinstallTenant(name: string): Promise<void> {
    this.#tenants.add(name);
    await this.helmTenant(name, {}, "install");
  }

  /** `helm install` or `upgrade` of a tenant. */
  async helmTenant(
    name: string,
    { tag, dedicated = false, config = "", serverName = `${name}.example`, host = serverName, ...more }: TenantValues,
    verb: "install" | "upgrade" = "upgrade",
  ): Promise<void> {
    const values = {
      serverName,
      ...(this.#isPrivate ? TRUST : {}),
      ingress: { tlsEnabled: false },
      ...(more.workers ? SIDECARS : {}),
      synapse: {
        asTenantHook: {
          enabled: !dedicated,
          clusterId: CLUSTER,
          namespace: this.namespace,
          hibernation: more.hibernation ?? {},
        },
        image: { tag: tag ?? "" },
        ...(more.workers ? { workers: more.workers } : {}),
        ...this.serversOf(name, more.postgres, more.media),
        additional: { tests: { config: `${RELAXED}${config}` } },
        ingress: { host },
        ...this.#keys,
      },
    };
    const chart = [name, this.#chartOf("matrix-stack"), "-n", this.namespaceOf(name), "-f", "-"];
    await run("helm", [verb, ...chart], JSON.stringify(values));
  }

  async uninstallTenant(name: string): Promise<void> {
    await helm("uninstall", name, "-n", this.namespaceOf(name), "--wait", "--timeout", "2m");
    this.#tenants.delete(name);
    await kubectl("delete", "namespace", this.namespaceOf(name), "--wait=false");
  }

  async status(name: string): Promise<TenantStatus> {
    const json = await kubectl("-n", this.namespace, "get", "synapsetenant", name, "-o", "json");
    return (JSON.parse(json) as { status?: TenantStatus }).status ?? { phase: "", reason: "", message: "", epoch: 0 };
  }

  running(name: string, and: (status: TenantStatus) => boolean = () => true, seconds = 240): Promise<TenantStatus> {
    return until(
      `${name} runs`,
      async () => {
        const status = await this.status(name);
        if (status.phase === "Running" && status.move === undefined && and(status)) return status;
        throw new Error(JSON.stringify(status));
      },
      seconds,
    );
  }

  asleep(name: string): Promise<TenantStatus> {
    return until(
      `${name} sleeps`,
      async () => {
        const status = await this.status(name);
        if (status.phase === "Asleep") return status;
        throw new Error(JSON.stringify(status));
      },
      300,
    );
  }

  /**
   * The controllers' API, at a replica that its Service names. Not at the Service's own address: by that, this machine may come from an address of
   * its own that network policies do not let in.
   */
  async api(method: string, path: string, body?: object): Promise<unknown> {
    const of = (...args: string[]) => kubectl("-n", this.namespace, "get", ...args);
    const ready = "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}";
    const slices = await of("endpointslices", "-l", `kubernetes.io/service-name=${CLUSTER}-controller`, "-o", ready);
    const [ip] = slices.split(" ");
    if (!ip) throw new Error("no controller is ready");
    const response = await fetch(`http://${ip}:8010${path}`, {
      method,
      headers: {
        authorization: `Bearer ${await this.token()}`,
        ...(body ? { "content-type": "application/json" } : {}),
      },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === "" ? undefined : JSON.parse(text);
  }

  /** Of the API, and good for the console. */
  async token(): Promise<string> {
    const secret = ["get", "secret", `${CLUSTER}-tokens`, "-o", "jsonpath={.data.api-token}"];
    return Buffer.from(await kubectl("-n", this.namespace, ...secret), "base64").toString();
  }

  async register(tenant: string, name: string): Promise<TestUser> {
    const user = { username: name, password: PASSWORD, admin: false };
    await until(`${name} is registered`, () => this.api("POST", `/v1/tenants/${tenant}/users`, user));
    return this.logIn(tenant, name);
  }

  async logIn(tenant: string, name: string): Promise<TestUser> {
    const url = this.urlOf(tenant);
    const answer = await new TestUser(url, undefined, this.agent).client.loginRequest({
      type: "m.login.password",
      identifier: { type: "m.id.user", user: name },
      password: PASSWORD,
    });
    const { access_token: accessToken, user_id: userId, device_id: deviceId } = answer;
    return new TestUser(url, { accessToken, userId, deviceId }, this.agent);
  }

  urlOf(tenant: string): string {
    return `http://${tenant}.example:8008`;
  }

  get agent(): Agent {
    if (!this.#agent) throw new Error("not installed");
    return this.#agent;
  }

  /** Names of the pods with a label. */
  async pods(component: string): Promise<string[]> {
    const names = await kubectl(
      "-n",
      this.namespace,
      "get",
      "pods",
      "-l",
      `app.kubernetes.io/component=${component}`,
      "-o",
      "name",
    );
    return names.split("\n").filter((name) => name !== "");
  }

  async leader(): Promise<string> {
    const holder = await kubectl(
      "-n",
      this.namespace,
      "get",
      "lease",
      `${CLUSTER}-controller`,
      "-o",
      "jsonpath={.spec.holderIdentity}",
    );
    return holder.split("_")[0] ?? "";
  }

  /** Removes everything, also what a test that failed left half done. */
  async close(): Promise<void> {
    await this.#agent?.destroy();
    for (const name of this.#tenants) await this.uninstallTenant(name).catch(() => {});
    for (const name of this.#tenants)
      await kubectl("delete", "namespace", this.namespaceOf(name), "--wait=false").catch(() => {});
    for (const kind of ["synapsetenants", "synapseshards", "synapsefleets"])
      await kubectl("-n", this.namespace, "delete", kind, "--all", "--timeout=30s").catch(() => {});
    await helm("uninstall", CLUSTER, "-n", this.namespace, "--timeout", "1m").catch(() => {});
    // Nobody is left for whom gateways would go on.
    const gateways = ["delete", "pods", "-l", "app.kubernetes.io/component=gateway", "--force", "--grace-period=0"];
    await kubectl("-n", this.namespace, ...gateways).catch(() => {});
    const left = await kubectl("-n", this.namespace, "get", "synapsetenants", "-o", "name").catch(() => "");
    for (const object of left.split("\n").filter((name) => name !== ""))
      await kubectl(
        "-n",
        this.namespace,
        "patch",
        object,
        "--type=merge",
        "-p",
        '{"metadata":{"finalizers":[]}}',
      ).catch(() => {});
    await kubectl("delete", "namespace", this.namespace, "--timeout=120s").catch(() => {});
  }

  namespaceOf(tenant: string): string {
    return `${this.namespace}-${tenant}`;
  }
}

/** Given, so that no Job has to make them; that it does is tested with the chart. */
const KEYS = {
  signingKey: { value: `ed25519 a_test ${randomBytes(32).toString("base64").replace("=", "")}` },
  macaroon: { value: "macaroon" },
  registrationSharedSecret: { value: "registration" },
  formSecret: { value: "form" },
};

const SIDECARS = {
  haproxy: { image: { registry: "", repository: "synapse-shards-test/haproxy", tag: "2.6" } },
  redis: { image: { registry: "", repository: "synapse-shards-test/redis", tag: "7.0" } },
};

const TRUST = { trustedCAs: { configMap: "private-ca" } };

/**
 * That no request fails must not depend on how fast the machine starts a Synapse, or tells its nodes that a gateway stops; how long requests may
 * wait is the gateway's own tests' subject.
 */
export const PATIENT = { gateway: { parking: { maxSeconds: 240 }, shutdown: { delaySeconds: 20 } } };
/** On a slow machine a run takes longer than the time after which tenants fall asleep; a test says itself when one is to sleep. */
const AWAKE = { hibernation: { afterIdleSeconds: 0 } };

/** Lets tenants set what `RELAXED` does, and reach the S3 server at its Service's or pod's address. */
export const POLICY = {
  allowedOptions: ["rc_login", "rc_message", "rc_registration"],
  allowedDestinations: ["10.96.0.0/12:7070", "10.244.0.0/16:7070"],
};

/** Clients of tests are quicker than people. */
const RELAXED = `
rc_login: {address: {per_second: 1000, burst_count: 1000}, account: {per_second: 1000, burst_count: 1000}}
rc_message: {per_second: 1000, burst_count: 1000}
rc_registration: {per_second: 1000, burst_count: 1000}
`;
