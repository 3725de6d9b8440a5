import { randomBytes } from "node:crypto";
import { Resolver } from "node:dns/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PreparerError } from "../../../../src/ports/preparers.ts";
import { ShardPreparers } from "../../../../src/platforms/kubernetes/shard-preparers.ts";
import { proposedPort } from "../../../../src/platforms/kubernetes/launcher/assignment-secret.ts";
import type { KubernetesLauncher } from "../../../../src/platforms/kubernetes/launcher/kubernetes-launcher.ts";
import { shardObjectName } from "../../../../src/platforms/kubernetes/launcher/names.ts";
import type { Assignment, ShardControl, TenantState } from "../../../../src/ports/shard-control.ts";
import { LocalStore } from "../../../../src/platforms/local/store/local-store.ts";
import { newTenantSecrets } from "../../../../src/model/tenant-secrets.ts";
import { kubectl } from "../../../kubernetes/support/run.ts";
import { until } from "../../../support/patience.ts";
import { untilAnswers } from "../../../ports/launcher-contract.ts";
import { CLUSTER_ID, KUBECONFIG, KubernetesUnderTest, VERSION } from "./platform.ts";
import { policyFor, TenantPolicySchema } from "../../../../src/model/tenant-policy.ts";

const A = `${VERSION}-0`;
const B = `${VERSION}-1`;
/** PostgreSQL does not tell a role that is not there from a wrong password. */
const REFUSED = "DatabaseAuthenticationFailed";

/** Tenants with real databases on shards in pods, and nobody to look after them: the controller is away all the time. */
describe.skipIf(KUBECONFIG === undefined)("on the cluster of KUBECONFIG: tenants", { timeout: 480_000 }, () => {
  let kubernetes: KubernetesUnderTest;
  let launcher: KubernetesLauncher;
  const store = new LocalStore(":memory:");

  beforeAll(async () => {
    kubernetes = await KubernetesUnderTest.open();
    launcher = await kubernetes.launcher();
    await Promise.all([kubernetes.startPostgres(), ...[A, B].map((shard) => launcher.start(shard, VERSION))]);
    for (const shard of [A, B]) {
      await untilAnswers(launcher, shard);
      const seen = await launcher.observe(shard);
      const address = seen.state === "running" ? seen.address : "";
      const status = { phase: "Ready", reason: "", message: "", failures: 0, address } as const;
      await store.create("Shard", shard, { release: VERSION }, status);
    }
  }, 480_000);
  afterAll(() => kubernetes?.close());

  async function control<T>(shard: string, work: (client: ShardControl) => Promise<T>): Promise<T> {
    const seen = await launcher.observe(shard);
    if (seen.state !== "running") throw new Error(`shard ${shard} is ${JSON.stringify(seen)}`);
    const client = await launcher.client(shard, seen.address);
    try {
      return await work(client);
    } finally {
      await client.close();
    }
  }

  function assignmentOf(name: string): Assignment {
    const keys = newTenantSecrets(`${name}.example`);
    const base = {
      server_name: `${name}.example`,
      public_baseurl: `https://${name}.example/`,
      database: { name: "psycopg2", args: kubernetes.databaseOf(name) },
      media_store_path: `/var/cache/synapse-shards/media/${name}`,
      macaroon_secret_key: keys.macaroonSecretKey,
      form_secret: keys.formSecret,
      registration_shared_secret: keys.registrationSharedSecret,
      report_stats: false,
      trusted_key_servers: [],
      suppress_key_server_warning: true,
    };
    const policy = policyFor(TenantPolicySchema.parse({}), name);
    return { serverName: `${name}.example`, epoch: 1, base, overrides: "", signingKey: keys.signingKey, policy };
  }

  /** A tenant with a database of its own, whose schema a preparer in one of the shards has made. */
  async function prepared(name: string, shard: string): Promise<Assignment> {
    await kubernetes.createDatabase(name);
    const assignment = assignmentOf(name);
    const preparer = await new ShardPreparers(store, launcher).start(VERSION);
    try {
      const instance = `migration-${randomBytes(4).toString("hex")}`;
      const { from, to } = await preparer.migrate({ name, shard, instance, assignment });
      expect({ from, to }).toEqual({ from: null, to: expect.any(Number) });
    } finally {
      await preparer.close();
    }
    return assignment;
  }

  const tenantOn = (shard: string, name: string): Promise<TenantState | undefined> =>
    control(shard, async (client) => (await client.state()).tenants.find((tenant) => tenant.name === name));

  /** Ends a shard's process or pod, and waits until another one answers. */
  async function remade(shard: string, end: () => Promise<unknown>): Promise<void> {
    const { instance } = await untilAnswers(launcher, shard);
    await end();
    await until("another process", async () => (await untilAnswers(launcher, shard)).instance !== instance);
    // Preparers are asked for at the address that the store has.
    const seen = await launcher.observe(shard);
    const object = await store.get("Shard", shard);
    if (object && seen.state === "running") {
      object.status.address = seen.address;
      await store.update(object);
    }
  }

  /** Asks at the very address that gateways were told, through the cluster's own DNS, with the secret that the shard's process knows them by. */
  async function serves(shard: string, state: TenantState): Promise<void> {
    const [host = "", port] = (state.address ?? "").split(":");
    const dns = ["-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}"];
    const resolver = new Resolver();
    resolver.setServers([await kubectl(...dns)]);
    await until(`${state.name} serves at ${state.address}`, async () => {
      const [ip] = await resolver.resolve4(host);
      const url = `http://${ip}:${port}/_matrix/key/v2/server`;
      const secret = await control(shard, async (client) => (await client.state()).gatewaySecret ?? "");
      const headers = { "x-synapse-shards-secret": secret };
      const response = await fetch(url, { headers, signal: AbortSignal.timeout(2_000) });
      return ((await response.json()) as { server_name: string }).server_name === state.serverName;
    });
  }

  async function copiesOf(shard: string): Promise<string[]> {
    const name = shardObjectName(CLUSTER_ID, shard);
    const secret = await kubernetes.core.readNamespacedSecret({ name, namespace: kubernetes.namespace });
    return Object.keys(secret.data ?? {}).filter((key) => key.endsWith(".json.gz"));
  }

  test("a tenant keeps its address when its shard crashes", async () => {
    const assignment = await prepared("steady", A);
    const state = await control(A, (client) => client.startTenant("steady", assignment));
    const host = `${kubernetes.podOf(A)}.${shardObjectName(CLUSTER_ID, A)}.${kubernetes.namespace}.svc.cluster.local`;
    expect(state.address).toBe(`${host}:${proposedPort("steady")}`);
    await serves(A, state);
    await remade(A, () => kubernetes.killProcess(A));
    await serves(A, state);
  });

  test("the pod that follows a lost one serves its tenants at the same address", async () => {
    const state = (await tenantOn(A, "steady"))!;
    const pod = ["-n", kubernetes.namespace, "delete", "pod", kubernetes.podOf(A)];
    await remade(A, () => kubectl(...pod, "--force", "--grace-period=0"));
    await until("it runs there", async () => (await tenantOn(A, "steady"))?.phase === "running");
    expect(await tenantOn(A, "steady")).toMatchObject({ address: state.address, epoch: 1 });
    await serves(A, state);
  });

  test("brings nothing back in a new pod that was stopped before", async () => {
    await control(A, (client) => client.stopTenant("steady", 0));
    expect(await copiesOf(A)).toEqual([]);
    await remade(A, () => launcher.kill(A));
    expect(await tenantOn(A, "steady")).toBeUndefined();
  });

  test("gives way in a new pod to the shard that took its tenant meanwhile", async () => {
    const assignment = await prepared("moved", A);
    await control(A, (client) => client.startTenant("moved", assignment));
    // Shard A has not been asked, as if its node were away: its copy of the assignment stays.
    const state = await control(B, (client) => client.startTenant("moved", { ...assignment, epoch: 2 }));
    await remade(A, () => launcher.kill(A));
    await until("the fence", async () => (await tenantOn(A, "moved"))?.phase === "fenced");
    await serves(B, state);
    // As the controller does with tenants that belong elsewhere: now it is forgotten for good.
    await control(A, (client) => client.stopTenant("moved", 0));
    expect(await copiesOf(A)).toEqual([]);
  });

  test("the pod that follows uses the ports that gateways were told", async () => {
    const names = namesOfOnePort();
    const states: TenantState[] = [];
    for (const name of names) {
      const assignment = await prepared(name, B);
      states.push(await control(B, (client) => client.startTenant(name, assignment)));
    }
    expect(states[0]?.address).not.toBe(states[1]?.address);
    await remade(B, () => launcher.kill(B));
    for (const state of states) await serves(B, state);
    for (const name of [...names, "moved"]) await control(B, (client) => client.stopTenant(name, 0));
  });

  test("a refused start leaves no copy", async () => {
    const start = control(B, (client) => client.startTenant("refused", assignmentOf("refused")));
    await expect(start).rejects.toMatchObject({ code: REFUSED });
    expect(await copiesOf(B)).not.toContain("refused.json.gz");
  });

  test("refuses too much configuration for a Secret", async () => {
    const name = shardObjectName(CLUSTER_ID, B);
    // What cannot be compressed, in nearly the longest configuration that a shard takes.
    const overrides = `# ${randomBytes(150_000).toString("base64")}\n`;
    const write = (tenant: string) =>
      control(B, (client) => client.startTenant(tenant, { ...assignmentOf(tenant), overrides }));
    await expect(write("small")).rejects.toMatchObject({ code: REFUSED });
    // As other tenants' would.
    await kubernetes.patchSecret(name, { data: { filler: randomBytes(980_000).toString("base64") } });
    await expect(write("large")).rejects.toMatchObject({
      code: "AssignmentTooLarge",
      message: expect.stringMatching(/exceed the 1 MiB .* shorten homeserver.yaml, or lower maxTenantsPerShard/),
    });
    await kubernetes.patchSecret(name, { data: { filler: null } });
    expect(await copiesOf(B)).not.toEqual(expect.arrayContaining([expect.stringMatching(/^(small|large)\./)]));
  });

  test("says why a preparer failed, or that there is no shard for it", async () => {
    const preparers = new ShardPreparers(store, launcher);
    await expect(preparers.start("0.0.1")).rejects.toMatchObject({
      code: "Unavailable",
      message: expect.stringContaining("no shard of Synapse 0.0.1"),
    });
    const preparer = await preparers.start(VERSION);
    const command = { name: "x", shard: A, instance: "i", assignment: assignmentOf("x") };
    const failure: unknown = await preparer.migrate(command).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(PreparerError);
    expect(failure).toMatchObject({ code: REFUSED });
    await preparer.close();
    await preparer.close();
  });
});

/** Two names whose ports are the same by chance. */
function namesOfOnePort(): [string, string] {
  const seen = new Map<number, string>();
  for (let n = 0; ; n++) {
    const name = `port-${n}`;
    const other = seen.get(proposedPort(name));
    if (other !== undefined) return [other, name];
    seen.set(proposedPort(name), name);
  }
}
