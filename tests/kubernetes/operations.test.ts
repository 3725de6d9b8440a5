import { fetch } from "undici";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TestUser } from "../e2e/support/matrix.ts";
import { Chatter } from "./support/chatter.ts";
import { withoutCluster } from "./support/cluster.ts";
import { Installation, nodes, PATIENT } from "./support/installation.ts";
import { Polls } from "./support/polls.ts";
import { NETWORK } from "./support/servers.ts";
import { helm, kubectl, run } from "./support/run.ts";
import { until } from "../support/patience.ts";

const RELEASE = "1.163.2";
const MINUTES = 60_000;
const PODS_IP = "jsonpath={.items[0].status.podIP}";

/** Say in a line for each HOST:PORT of their arguments whether it can be connected to. */
const PROBE_IN_PYTHON = `import socket, sys
for place in sys.argv[1:]:
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 3).close()
        print("yes")
    except OSError:
        print("no")`;
const PROBE_IN_NODE = `const { connect } = require("node:net");
const reaches = (place) => new Promise((done) => {
  const [host, port] = place.split(":");
  const socket = connect({ host, port: Number(port) }).setTimeout(3000);
  for (const [event, word] of [["connect", "yes"], ["error", "no"], ["timeout", "no"]])
    socket.once(event, () => { socket.destroy(); done(word); });
});
(async () => { for (const place of process.argv.slice(1)) console.log(await reaches(place)); })();`;
const PROBE_IN_BASH = `for place; do
  timeout 3 bash -c "</dev/tcp/\${place%:*}/\${place##*:}" 2>/dev/null && echo yes || echo no
done`;

/** Sends the lines of its arguments to the first of them, a HOST/PORT, and says what comes back. */
const ASK_IN_BASH = `exec 3<>"/dev/tcp/$1" && shift && printf '%s\\r\\n' "$@" "" >&3 && timeout 20 cat <&3`;

/** What operators do to a cluster, and what must not come of it. One installation; the tests build on each other. */
describe.skipIf(withoutCluster)(
  "operating the charts (needs KUBECONFIG, and the images of tests/kubernetes/images)",
  () => {
    const cluster = new Installation("ops", { keys: "made" });
    const inNamespace = (...args: string[]) => kubectl("-n", cluster.namespace, ...args);
    let names: string[] = [];
    let ada: TestUser;

    const versions = async (tenant: string) =>
      (await fetch(`${cluster.urlOf(tenant)}/_matrix/client/versions`, { dispatcher: cluster.agent })).status;
    const signingKey = async () =>
      Buffer.from(
        await kubectl(
          "-n",
          cluster.namespaceOf("a"),
          "get",
          "secret",
          "a-generated",
          "-o",
          "jsonpath={.data.SYNAPSE_SIGNING_KEY}",
        ),
        "base64",
      ).toString("utf8");
    const condition = async (type: string) => {
      const json = JSON.parse(await inNamespace("get", "synapsetenant", "a", "-o", "json")) as {
        status?: { conditions?: { type: string; status: string; reason: string; message: string }[] };
      };
      return json.status?.conditions?.find((each) => each.type === type);
    };

    beforeAll(async () => {
      names = await nodes();
      // On the last node, as long as that may be had.
      const preference = {
        matchExpressions: [{ key: "kubernetes.io/hostname", operator: "In", values: [names.at(-1)] }],
      };
      await cluster.install({
        avgShardsLoadRedistributionThreshold: 0,
        fleet: { imageTag: RELEASE },
        controller: { allowLocalFederation: true, tenantNamespaces: true },
        // The pod of PostgreSQL passes for the ingress controller.
        gateway: { ...PATIENT.gateway, trustedProxies: ["10.244.0.0/16"], adminAccess: { enabled: true } },
        networkPolicies: {
          ...NETWORK.networkPolicies,
          adminAccessFrom: [{ podSelector: { matchLabels: { app: "postgres" } } }],
        },
        shard: {
          topologySpreadConstraints: [],
          affinity: {
            nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, preference }] },
          },
        },
      });
      await cluster.createTenant("a");
      await cluster.running("a");
      ada = await cluster.register("a", "ada");
    }, 8 * MINUTES);
    afterAll(() => cluster.close(), 5 * MINUTES);

    it(
      "takes up a changed token at once, in controllers and gateways, without a restart",
      async () => {
        const pods = () => inNamespace("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}");
        const before = await pods();
        const tokens = { "api-token": "a-new-token-for-the-api", "gateway-token": "a-new-token-for-gateways" };
        await inNamespace("patch", "secret", "synapse-shards-tokens", "-p", JSON.stringify({ stringData: tokens }));
        await until("the new token is good", () => cluster.api("GET", "/v1/status"));
        expect(await helm("test", "synapse-shards", "-n", cluster.namespace, "--timeout", "3m")).toContain("Succeeded");
        expect((await pods()).split(" ").toSorted()).toEqual(before.split(" ").toSorted());
        // A deleted object comes back as it was.
        await inNamespace("delete", "secret", "synapse-shards-tokens");
        await until("it is there again", async () =>
          (await inNamespace("get", "secret", "-o", "name")).includes("tokens"),
        );
        await until("its token is good", () => cluster.api("GET", "/v1/status"));
      },
      8 * MINUTES,
    );

    it(
      "lets each pod reach what it needs and nothing else: shards no control plane, and no other pod a tenant",
      async () => {
        const ipOf = async (component: string) =>
          inNamespace("get", "pods", "-l", `app.kubernetes.io/component=${component}`, "-o", PODS_IP);
        const [controller, gateway, shard] = await Promise.all(["controller", "gateway", "shard"].map(ipOf));
        const address = (await cluster.status("a")).address ?? "";
        const places = {
          postgres: "postgres:5432",
          s3: "s3:7070",
          apiServer: "kubernetes.default.svc:443",
          node: "10.244.0.1:6443",
          controller: `${controller}:8010`,
          gateway: `${gateway}:8008`,
          gatewayMetrics: `${gateway}:9090`,
          administrators: `${gateway}:8449`,
          shardControl: `${shard}:9000`,
          tenant: address,
        };
        const from = async (pod: string, ...program: string[]) => {
          const said = await inNamespace("exec", pod, "--", ...program, ...Object.values(places));
          const names = Object.keys(places);
          return names.filter((_, n) => said.trim().split("\n")[n] === "yes");
        };
        const first = async (component: string) => (await cluster.pods(component))[0]!;
        expect(await from(await first("shard"), "python", "-c", PROBE_IN_PYTHON)).toEqual([
          "postgres",
          "s3",
          // Itself.
          "shardControl",
          "tenant",
        ]);
        const reached = await from(await first("gateway"), "node", "-e", PROBE_IN_NODE);
        const itself = ["gateway", "gatewayMetrics", "administrators"];
        expect(reached.filter((name) => !itself.includes(name))).toEqual(["controller", "tenant"]);
        const controlled = await from(await first("controller"), "node", "-e", PROBE_IN_NODE);
        expect(controlled).toEqual(["postgres", "s3", "apiServer", "node", "controller", "shardControl", "tenant"]);
        // Any other pod: the gateway is there for all; its entrance for administrators is for this one.
        const other = await from("postgres", "bash", "-c", PROBE_IN_BASH, "probe");
        expect(other.filter((name) => !["postgres", "s3", "apiServer", "node"].includes(name))).toEqual([
          "gateway",
          "administrators",
        ]);
      },
      8 * MINUTES,
    );

    it(
      "lets a tenant's administrators in while it is open, from the networks that are named, and never at the public address",
      async () => {
        const path = "/_synapse/admin/v2/users";
        /** As an ingress controller passes it on, whose word about the client counts. @returns the first line, and the body's */
        const enter = async (token: string, client: string, port = "gateway-admin:8449"): Promise<string> => {
          const request = [
            `GET ${path} HTTP/1.1`,
            "Host: a.example",
            `X-Forwarded-For: ${client}`,
            "X-Forwarded-Proto: https",
            `Authorization: Bearer ${token}`,
            "Connection: close",
          ];
          const place = `synapse-shards-${port}`.replace(":", "/");
          return inNamespace("exec", "postgres", "--", "bash", "-c", ASK_IN_BASH, "ask", place, ...request);
        };
        const inside = "198.51.100.7";
        const allowedNetworks = ["198.51.100.0/24"];
        await cluster.api("POST", "/v1/tenants/a/users/ada/make-admin", { admin: true });
        const own = ada.client.getAccessToken()!;
        expect(await enter(own, inside)).toContain("AdminAccessClosed");
        const opened = await cluster.api("PUT", "/v1/tenants/a/admin-access", { allowedNetworks });
        expect(opened).toMatchObject({ open: true, allowedNetworks, address: "https://a.example" });
        const { token } = (await cluster.api("POST", "/v1/tenants/a/users/ada/admin-session")) as { token: string };
        for (const good of [own, token]) {
          const listed = await enter(good, inside);
          expect(listed).toMatch(/^HTTP\/1.1 200/);
          expect(listed).toContain("@ada:a.example");
        }
        expect(await enter("of-nobody", inside)).toMatch(/^HTTP\/1.1 401/);
        expect(await enter(own, "203.0.113.9")).toContain("AdminAccessClosed");
        expect(await enter(own, inside, "gateway:8008")).toContain("AdminForbidden");
        expect(await condition("AdminAccess")).toMatchObject({ status: "True", reason: "Open" });
        // Nobody comes in by a list that the API server took and that is none.
        const patch = (networks: string[]) =>
          inNamespace(
            "patch",
            "synapsetenant",
            "a",
            "--type=merge",
            "-p",
            JSON.stringify({ spec: { adminAccess: { allowedNetworks: networks } } }),
          );
        await expect(patch(["10.0.0.0/33"])).rejects.toThrow("an IP address or a network such as 10.0.0.0/8");
        await patch(["1:2"]);
        await until(
          "it says what is wrong",
          async () => (await condition("AdminAccess"))?.reason === "InvalidNetworks",
        );
        await until("nobody comes in", async () => (await enter(own, inside)).includes("AdminAccessClosed"));
        await patch(allowedNetworks);
        await until("it is open again", async () => (await enter(own, inside)).startsWith("HTTP/1.1 200"));
        expect(await cluster.api("DELETE", "/v1/tenants/a/admin-access")).toMatchObject({ open: false });
        expect(await enter(own, inside)).toContain("AdminAccessClosed");
        // The session that was opened for somebody has ended with it, and hers has not.
        const headers = { authorization: `Bearer ${token}` };
        const whoami = `${cluster.urlOf("a")}/_matrix/client/v3/account/whoami`;
        expect((await fetch(whoami, { dispatcher: cluster.agent, headers })).status).toBe(401);
        expect((await ada.client.whoami()).user_id).toBe("@ada:a.example");
      },
      8 * MINUTES,
    );

    it(
      "serves a tenant whose Secret was deleted as before, says what is missing, and takes it up when it is back",
      async () => {
        const home = cluster.namespaceOf("a");
        const secret = await kubectl("-n", home, "get", "secret", "a-generated", "-o", "json");
        await kubectl("-n", home, "delete", "secret", "a-generated");
        const missing = await until("it is noticed", async () => {
          const found = await condition("SecretsReadable");
          return found?.status === "False" ? found : undefined;
        });
        expect(missing).toMatchObject({ reason: "SecretMissing", message: expect.stringContaining("a-generated") });
        // Also under a controller that never saw the Secret.
        await inNamespace("delete", "pod", await cluster.leader(), "--force", "--grace-period=0");
        await until("another one leads", () => cluster.api("GET", "/v1/status"));
        expect(await versions("a")).toBe(200);
        expect((await ada.client.whoami()).user_id).toBe("@ada:a.example");
        expect(await condition("Ready")).toMatchObject({ status: "True" });
        const { metadata, ...rest } = JSON.parse(secret) as { metadata: Record<string, unknown> };
        const kept = { name: metadata["name"], labels: metadata["labels"], annotations: metadata["annotations"] };
        await cluster.apply([{ ...rest, metadata: kept }], home);
        await until("it is read again", async () => (await condition("SecretsReadable"))?.status === "True");
        await cluster.running("a");
      },
      8 * MINUTES,
    );

    it(
      "keeps its hosts while an upgrade with another one is refused, and has the new one once its configuration is right",
      async () => {
        const at = async (host: string) => {
          const answer = await fetch(`http://${host}:8008/_matrix/client/versions`, { dispatcher: cluster.agent });
          return answer.status;
        };
        const everywhere = async () => ({
          name: await at("a.example"),
          chat: await at("chat.a.example"),
          talk: await at("talk.a.example"),
        });
        await cluster.helmTenant("a", { host: "chat.a.example" });
        await until("it is at its first host", async () => (await at("chat.a.example")) === 200);
        expect(await everywhere()).toEqual({ name: 200, chat: 200, talk: 404 });
        await cluster.helmTenant("a", { host: "talk.a.example", config: "daemonize: true\n" });
        const refused = await until("it is refused", async () => {
          const found = await condition("UpToDate");
          return found?.reason === "ConfigRefused" ? found : undefined;
        });
        expect(refused).toMatchObject({ status: "False", message: expect.stringContaining("daemonize") as string });
        expect(await condition("Ready")).toMatchObject({ status: "True" });
        expect(await everywhere()).toEqual({ name: 200, chat: 200, talk: 404 });
        // Routes are made again by a controller that never saw what was before.
        const before = await cluster.leader();
        await inNamespace("delete", "pod", before, "--force", "--grace-period=0");
        await until("another one leads", async () => ![before, ""].includes(await cluster.leader()));
        await until("it knows the tenant", () => cluster.api("GET", "/v1/tenants/a"));
        expect(await everywhere()).toEqual({ name: 200, chat: 200, talk: 404 });
        await cluster.helmTenant("a", { host: "talk.a.example" });
        await until("it is at its new host", async () => (await at("talk.a.example")) === 200);
        await until("the old one is nobody's", async () => (await at("chat.a.example")) === 404);
        await until("it says so", async () => (await condition("UpToDate"))?.status === "True");
        await cluster.helmTenant("a", {});
        await until("it is as it was", async () => (await at("talk.a.example")) === 404);
        await cluster.running("a");
      },
      8 * MINUTES,
    );

    it(
      "hosts a tenant that a customer owns in a namespace of theirs, without rights in that of the shards",
      async () => {
        const home = `${cluster.namespace}-customer`;
        const theirs = (...args: string[]) => kubectl("--as=customer", "-n", home, ...args);
        const hosted = `${home}-chat`;
        try {
          await kubectl("create", "namespace", home);
          const role = `--clusterrole=${cluster.namespace}-synapse-shards-tenants`;
          await kubectl("-n", home, "create", "rolebinding", "tenants", role, "--user=customer");
          await cluster.createDatabase("chat");
          const args = cluster.databaseOf("chat");
          const keys = Object.fromEntries(
            ["macaroon-secret-key", "form-secret", "registration-shared-secret"].map((key) => [key, key]),
          );
          const secret = {
            apiVersion: "v1",
            kind: "Secret",
            metadata: { name: "chat-synapse-tenant", labels: { "synapse-shards.io/tenant": hosted } },
            stringData: {
              ...keys,
              "homeserver.yaml": JSON.stringify({ database: { name: "psycopg2", args }, enable_media_repo: false }),
              "signing.key": "ed25519 a_0001 hwVOQXMTWpPh0b0ZYHvsgsJPTHtlXeXvlcDkKJnAPXQ",
            },
          };
          await cluster.apply([secret], home);
          const tenant = {
            apiVersion: "synapse-shards.io/v1alpha1",
            kind: "SynapseTenant",
            metadata: { name: "chat", namespace: home },
            spec: { clusterId: "synapse-shards", serverName: "chat.example", secretName: "chat-synapse-tenant" },
          };
          await run("kubectl", ["--as=customer", "create", "-f", "-"], JSON.stringify(tenant));
          await theirs(
            "wait",
            "synapsetenant/chat",
            "--for=jsonpath={.status.reason}=NamespaceNotAllowed",
            "--timeout=120s",
          );
          await kubectl("label", "namespace", home, `synapse-shards.io/shards-namespace=${cluster.namespace}`);
          const reader = ["--verb=get", "--resource=secrets", "--resource-name=chat-synapse-tenant"];
          await kubectl("-n", home, "create", "role", "chat", ...reader);
          const account = `--serviceaccount=${cluster.namespace}:synapse-shards-controller`;
          await kubectl("-n", home, "create", "rolebinding", "chat", "--role=chat", account);
          await theirs("wait", "synapsetenant/chat", "--for=condition=Ready", "--timeout=240s");
          await until("it serves", async () => (await versions("chat")) === 200);
          await expect(kubectl("--as=customer", "-n", cluster.namespace, "get", "synapsetenants")).rejects.toThrow(
            /forbidden/,
          );
          await theirs("delete", "synapsetenant", "chat");
          await until(
            "it is gone",
            async () => !(await inNamespace("get", "synapsetenants", "-o", "name")).includes(hosted),
          );
          await until("nothing serves it", async () => (await versions("chat")) === 404);
        } finally {
          await kubectl("delete", "namespace", home, "--wait=false", "--ignore-not-found");
        }
      },
      8 * MINUTES,
    );

    it(
      "goes from three gateways to one while people write and wait for news, and no request fails",
      async () => {
        const deployment = "deployment/synapse-shards-gateway";
        const scaleTo = (replicas: number) => inNamespace("scale", deployment, `--replicas=${replicas}`);
        const inFlight = async () => {
          const ips = [
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/component=gateway",
            "-o",
            "jsonpath={.items[*].status.podIP}",
          ];
          return Promise.all(
            (await inNamespace(...ips)).split(" ").map(async (ip) => {
              const metrics = await (await fetch(`http://${ip}:9090/metrics`)).text();
              return Number(/^synapse_shards_gateway_requests_in_flight(?:\{.*\})? (\d+)$/m.exec(metrics)?.[1] ?? 0);
            }),
          );
        };
        await scaleTo(3);
        await inNamespace("rollout", "status", deployment, "--timeout=2m");
        await cluster.register("a", "quiet");
        const chatter = await Chatter.begin(ada, await cluster.logIn("a", "ada"));
        const polls = await Polls.begin(cluster, "a", "quiet", 12);
        try {
          await until("each gateway has requests that wait", async () => {
            const waiting = await inFlight();
            return waiting.length === 3 && waiting.every((number) => number > 0);
          });
          await scaleTo(1);
          await until("two are gone", async () => (await cluster.pods("gateway")).length === 1);
          const [count, answered] = [chatter.count, polls.answered];
          await until("it goes on", async () => chatter.count > count + 5 && polls.answered > answered);
        } finally {
          const { sent, kept, failures } = await chatter.end();
          expect([...failures, ...(await polls.end())]).toEqual([]);
          expect(kept).toEqual(sent);
          await scaleTo(2);
        }
      },
      8 * MINUTES,
    );

    it(
      "moves tenants off a node before it is emptied, and no request fails",
      async () => {
        const node = names.at(-1)!;
        expect(names.length, "needs two nodes").toBeGreaterThan(1);
        const nodeOf = async () =>
          inNamespace(
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/component=shard",
            "-o",
            "jsonpath={.items[*].spec.nodeName}",
          );
        expect(await nodeOf()).toBe(node);
        const chatter = await Chatter.begin(ada, await cluster.logIn("a", "ada"));
        try {
          await until("a few messages are sent", async () => chatter.count > 5);
          await kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=4m");
          await cluster.running("a", ({ shard }) => shard === `${RELEASE}-1`);
          const count = chatter.count;
          await until("it goes on", async () => chatter.count > count + 5);
        } finally {
          await kubectl("uncordon", node);
          const { sent, kept, failures } = await chatter.end();
          expect(failures).toEqual([]);
          expect(kept).toEqual(sent);
        }
        expect(await nodeOf()).toBe(names[0]);
        expect(await inNamespace("get", "events.events.k8s.io")).toContain("NodeMaintenance");
      },
      8 * MINUTES,
    );

    it(
      "refuses to be uninstalled while there are tenants, and can be upgraded afterwards",
      async () => {
        await expect(helm("uninstall", "synapse-shards", "-n", cluster.namespace, "--timeout", "2m")).rejects.toThrow(
          "synapse-shards-uninstall",
        );
        expect(await inNamespace("logs", "job/synapse-shards-uninstall")).toMatch(/still has 1 tenants \(a\)/);
        await cluster.upgrade({ maxConcurrentMoves: 3 });
        expect(await versions("a")).toBe(200);
      },
      8 * MINUTES,
    );

    it(
      "keeps the signing key through an uninstallation, and gives it to the release that is installed again",
      async () => {
        const before = await signingKey();
        const said = await helm("get", "notes", "a", "-n", cluster.namespaceOf("a"));
        expect(said).toContain(`${cluster.namespaceOf("a")}/a-generated`);
        await helm("uninstall", "a", "-n", cluster.namespaceOf("a"), "--wait", "--timeout", "2m");
        await until("it is gone", async () => (await inNamespace("get", "synapsetenants", "-o", "name")) === "");
        await cluster.reinstallTenant("a");
        await cluster.running("a");
        expect(await signingKey()).toBe(before);
        expect((await ada.client.whoami()).user_id).toBe("@ada:a.example");
      },
      8 * MINUTES,
    );

    it(
      "lets its namespace be deleted with the tenants in it",
      async () => {
        await kubectl("delete", "namespace", cluster.namespace, "--timeout=150s");
        await expect(kubectl("get", "namespace", cluster.namespace)).rejects.toThrow(/not found/);
      },
      8 * MINUTES,
    );
  },
);
