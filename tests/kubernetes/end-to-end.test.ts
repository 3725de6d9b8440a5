import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TestUser } from "../e2e/support/matrix.ts";
import { Chatter } from "./support/chatter.ts";
import { withoutCluster } from "./support/cluster.ts";
import { Installation } from "./support/installation.ts";
import { helm, kubectl, run } from "./support/run.ts";
import { until } from "../support/patience.ts";

const OLD = "1.157.2";
const NEW = "1.163.2";
const MINUTES = 60_000;

/** The charts as their users have them, with real clients. The tests build on each other. */
describe.skipIf(withoutCluster)(
  "the charts on a cluster (needs KUBECONFIG, and the images of tests/kubernetes/images)",
  () => {
    const cluster = new Installation("e2e");
    const inNamespace = (...args: string[]) => kubectl("-n", cluster.namespace, ...args);
    const users = new Map<string, TestUser>();
    const picture = randomBytes(300_000);
    let mxc = "";

    /** Begins to talk on a tenant, does something, and expects that nobody noticed. */
    async function unnoticed(tenant: string, what: () => Promise<unknown>): Promise<void> {
      const device = await cluster.logIn(tenant, "ada");
      const chatter = await Chatter.begin(users.get(tenant)!, device);
      try {
        await until("a few messages are sent", async () => chatter.count > 5);
        await what();
        const before = chatter.count;
        await until("it goes on", async () => chatter.count > before + 5);
      } finally {
        const { sent, kept, failures } = await chatter.end();
        expect(failures).toEqual([]);
        expect(kept).toEqual(sent);
      }
    }

    beforeAll(async () => {
      await cluster.install({
        maxTenantsPerShard: 2,
        maxShardsPerSynapseImageTag: 2,
        avgShardsLoadRedistributionThreshold: 0,
        controller: { allowLocalFederation: true },
        fleet: { imageTag: OLD },
        hibernation: { afterIdleSeconds: 0, minAwakeSeconds: 5 },
      });
    }, 8 * MINUTES);
    afterAll(() => cluster.close(), 5 * MINUTES);

    it(
      "passes helm test",
      async () => {
        expect(await helm("test", "synapse-shards", "-n", cluster.namespace, "--timeout", "2m")).toContain("Succeeded");
      },
      8 * MINUTES,
    );

    it(
      "places a tenant, whose users log in, talk, and keep files in its bucket",
      async () => {
        await Promise.all(["a", "b"].map((name) => cluster.createTenant(name)));
        for (const name of ["a", "b"]) {
          await cluster.running(name);
          users.set(name, await cluster.register(name, "ada"));
        }
        expect(await inNamespace("get", "statefulset", "-o", "name")).toBe(
          "statefulset.apps/synapse-shards-shard-1-157-2-0\n",
        );
        const { content_uri: uri } = await users
          .get("a")!
          .client.uploadContent(picture, { type: "image/png", name: "p.png" });
        mxc = uri;
        const stored = await inNamespace("exec", "s3", "--", "find", "/data/buckets/bucket-a", "-type", "f");
        expect(stored).toContain("local_content");
        expect(await inNamespace("get", "synapsetenants")).toMatch(/a\.example .*Running/);
      },
      8 * MINUTES,
    );

    it(
      "keeps a second release of one server name off all shards, and says whose name it is",
      async () => {
        await cluster.createTenant("twin", { serverName: "a.example" });
        await inNamespace(
          "wait",
          "synapsetenant/twin",
          "--for=jsonpath={.status.reason}=ServerNameTaken",
          "--timeout=120s",
        );
        const { phase, shard, message } = await cluster.status("twin");
        expect({ phase, shard }).toEqual({ phase: "Failed", shard: undefined });
        expect(message).toMatch(/server name a\.example belongs to tenant a already/);
        expect(await inNamespace("get", "synapsetenants")).toMatch(/twin +a\.example .*Failed +ServerNameTaken/);
        expect(await inNamespace("get", "events.events.k8s.io")).toMatch(
          /Warning +ServerNameTaken +synapsetenant\/twin/i,
        );
        expect((await users.get("a")!.download(mxc)).equals(picture)).toBe(true);
        await cluster.uninstallTenant("twin");
      },
      8 * MINUTES,
    );

    it(
      "makes a second shard for a third tenant",
      async () => {
        await cluster.createTenant("c");
        expect((await cluster.running("c")).shard).toBe(`${OLD}-1`);
        users.set("c", await cluster.register("c", "ada"));
      },
      8 * MINUTES,
    );

    it(
      "moves a tenant unnoticed, and its files come from the bucket, byte for byte",
      async () => {
        await unnoticed("a", async () => {
          await cluster.api("POST", "/v1/tenants/a/move", {});
          await cluster.running("a", ({ shard }) => shard === `${OLD}-1`);
        });
        expect((await users.get("a")!.download(mxc)).equals(picture)).toBe(true);
      },
      8 * MINUTES,
    );

    it("gives each tenant its own bucket's credentials alone", async () => {
      const [a, b] = ["a", "b"].map(async (name) =>
        Buffer.from(
          await kubectl(
            "-n",
            cluster.namespaceOf(name),
            "get",
            "secret",
            `${name}-synapse-tenant`,
            "-o",
            "jsonpath={.data.homeserver\\.yaml}",
          ),
          "base64",
        ).toString("utf8"),
      );
      expect(await a).toContain("secret-a");
      expect(await a).not.toContain("secret-b");
      expect(await b).not.toContain("secret-a");
    });

    it(
      "serves the tenants of a lost pod again while no controller runs",
      async () => {
        await inNamespace("scale", "deployment", "synapse-shards-controller", "--replicas=0");
        await until("no controller runs", async () => (await cluster.pods("controller")).length === 0);
        const before = await cluster.status("b");
        const pod = "synapse-shards-shard-1-157-2-0-0";
        const uid = () => inNamespace("get", "pod", pod, "-o", "jsonpath={.metadata.uid}");
        const old = await uid();
        await inNamespace("delete", "pod", pod, "--force", "--grace-period=0");
        await until("there is another pod", async () => (await uid()) !== old);
        await until("b answers", () => users.get("b")!.client.whoami(), 240);
        expect((await cluster.status("b")).epoch).toBe(before.epoch);
        await inNamespace("scale", "deployment", "synapse-shards-controller", "--replicas=2");
        await inNamespace("rollout", "status", "deployment", "synapse-shards-controller", "--timeout=240s");
        await cluster.running("b");
      },
      8 * MINUTES,
    );

    it(
      "starts a shard's container again with its tenants after kill -9",
      async () => {
        const pod = "synapse-shards-shard-1-157-2-0-0";
        const id = await inNamespace("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID}");
        await killContainer(id.replace(/^.*:\/\//, ""));
        await until("b answers", () => users.get("b")!.client.whoami(), 240);
        const restarts = await inNamespace(
          "get",
          "pod",
          pod,
          "-o",
          "jsonpath={.status.containerStatuses[0].restartCount}",
        );
        expect(Number(restarts)).toBeGreaterThan(0);
        await cluster.running("b");
      },
      8 * MINUTES,
    );

    it(
      "finishes a move once when the leading controller is killed in the middle",
      async () => {
        await unnoticed("c", async () => {
          for (let round = 0; round < 3; round++) {
            const from = (await cluster.running("c")).shard;
            const leader = await cluster.leader();
            // The API may be away for a moment, as the former leader was killed.
            await until("the move is under way", async () => {
              const { move, shard } = await cluster.status("c");
              if (move !== undefined || shard !== from) return true;
              await cluster.api("POST", "/v1/tenants/c/move", {});
              return false;
            });
            await inNamespace("delete", "pod", leader, "--force", "--grace-period=0");
            await cluster.running("c", ({ shard }) => shard !== from);
            await until("another leads", async () => ![leader, ""].includes(await cluster.leader()));
          }
        });
        const owners = await cluster.sql("SELECT shard FROM synapse_shards.fence", "c");
        expect(owners.trim()).toBe((await cluster.status("c")).shard);
      },
      8 * MINUTES,
    );

    it(
      "fails no request when a gateway goes",
      async () => {
        await unnoticed("a", async () => {
          const [first] = await cluster.pods("gateway");
          await inNamespace("delete", first!, "--wait=true");
          expect(
            await inNamespace("rollout", "status", "deployment", "synapse-shards-gateway", "--timeout=240s"),
          ).toContain("success");
        });
      },
      8 * MINUTES,
    );

    it(
      "upgrades a tenant to a new image tag unnoticed",
      async () => {
        await unnoticed("c", async () => {
          await cluster.helmTenant("c", { tag: NEW });
          await cluster.running("c", ({ shard }) => shard === `${NEW}-0`);
        });
        expect((await cluster.status("c")).lastMove).toMatchObject({ reason: "Upgrade", failedRequests: 0 });
      },
      8 * MINUTES,
    );

    it(
      "puts a tenant to sleep that nobody uses, wakes it for a request, and puts it to sleep again",
      async () => {
        const user = users.get("a")!;
        const failed = user.failures.length;
        const sleepsAfter = (afterIdleSeconds: number) =>
          cluster.helmTenant("a", { hibernation: { mode: "Auto", afterIdleSeconds } });
        await sleepsAfter(5);
        const { shard, address, sleep } = await cluster.asleep("a");
        expect([shard, address, sleep?.reason]).toEqual([undefined, undefined, "Idle"]);
        expect(await inNamespace("get", "synapsetenants")).toMatch(/a\.example .*Asleep/);
        expect((await users.get("b")!.client.whoami()).user_id).toBe("@ada:b.example");
        await sleepsAfter(3600);
        expect((await user.client.whoami()).user_id).toBe("@ada:a.example");
        expect(user.failures.slice(failed)).toEqual([]);
        expect((await cluster.running("a")).awake).toMatchObject({ reason: "request" });
        await sleepsAfter(5);
        await cluster.asleep("a");
      },
      12 * MINUTES,
    );

    it(
      "rolls a release out to a canary first, then to the rest, of which one is brought to it in its sleep",
      async () => {
        const rollout = { canaries: { count: 1, names: ["b"] }, waveSize: 5, maxConcurrentMoves: 1, soakSeconds: 5 };
        await cluster.upgrade({ fleet: { imageTag: NEW, rollout } });
        const first = await until(
          "one has gone first",
          async () => {
            const tags = await Promise.all(
              ["a", "b"].map(async (name) => (await cluster.status(name)).shard?.startsWith(NEW)),
            );
            return tags.some(Boolean) ? tags.map(Boolean) : undefined;
          },
          240,
        );
        expect(first).toEqual([false, true]);
        const prepared = await until("the one that sleeps is prepared", async () => {
          const status = await cluster.status("a");
          return status.schemaRelease === NEW ? status : undefined;
        });
        expect(prepared).toMatchObject({ phase: "Asleep", sleep: { preparedAt: expect.any(String) as string } });
        await cluster.helmTenant("a", {});
        expect((await users.get("a")!.client.whoami()).user_id).toBe("@ada:a.example");
        await cluster.running("a", ({ shard }) => shard?.startsWith(NEW) ?? false);
        await until("the fleet is done", async () => {
          const fleet = await inNamespace(
            "get",
            "synapsefleet",
            "synapse-shards",
            "-o",
            "jsonpath={.status.phase} {.status.updated}",
          );
          return fleet === "Idle 2";
        });
        expect((await users.get("a")!.download(mxc)).equals(picture)).toBe(true);
      },
      8 * MINUTES,
    );

    it(
      "makes a tenant dedicated and brings it back, with all it has and without a failed request",
      async () => {
        const shards = async () => {
          const columns = "-o=jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{'\\n'}{end}";
          const pods = await inNamespace("get", "pods", "-l", "app.kubernetes.io/component=shard", columns);
          return new Map(
            pods
              .trim()
              .split("\n")
              .map((line) => line.split(" ") as [string, string]),
          );
        };
        const before = await shards();
        const key = (await cluster.sql("SELECT count(*) FROM users", "a")).trim();
        await unnoticed("a", async () => {
          await cluster.helmTenant("a", { tag: NEW, dedicated: true });
          await cluster.running("a", ({ shard }) => shard === undefined, 240);
        });
        expect((await cluster.sql("SELECT shard FROM synapse_shards.fence", "a")).trim()).toContain("dedicated");
        expect((await users.get("a")!.download(mxc)).equals(picture)).toBe(true);
        await unnoticed("a", async () => {
          await cluster.helmTenant("a", { tag: NEW });
          await cluster.running("a", ({ shard }) => shard?.startsWith(NEW) ?? false, 240);
        });
        expect((await users.get("a")!.download(mxc)).equals(picture)).toBe(true);
        expect((await cluster.sql("SELECT count(*) FROM users", "a")).trim()).toBe(key);
        // No shard was restarted for it; an empty one may be gone.
        for (const [name, uid] of await shards()) expect([name, before.get(name) ?? uid]).toEqual([name, uid]);
      },
      12 * MINUTES,
    );

    it(
      "says so when everything is full, and gives a waiting tenant the place that becomes free",
      async () => {
        await cluster.createTenant("d", { tag: NEW });
        await cluster.running("d");
        await cluster.upgrade({ maxShardsPerSynapseImageTag: 2, maxTenantsPerShard: 2 });
        await cluster.createTenant("e", { tag: NEW });
        const waiting = await until("e waits", async () => {
          const status = await cluster.status("e");
          return status.phase === "Pending" && status.reason === "MaxShardsReached" ? status : undefined;
        });
        expect(waiting.message).toMatch(/2 shards/);
        expect(await inNamespace("describe", "synapsetenant", "e")).toContain("MaxShardsReached");
        await cluster.uninstallTenant("d");
        await cluster.running("e");
      },
      8 * MINUTES,
    );

    it(
      "keeps a deleted tenant with its names, has it back as it was, and leaves a proof of another's end",
      async () => {
        const items = async (path: string) =>
          ((await cluster.api("GET", path)) as { items: Record<string, unknown>[] }).items;
        const { spec } = JSON.parse(await inNamespace("get", "synapsetenant", "e", "-o", "json")) as { spec: object };
        await inNamespace("delete", "synapsetenant", "e", "--timeout=120s");
        const [d, e] = await items("/v1/deleted-tenants");
        expect([d, e]).toMatchObject([{ name: "d" }, { name: "e", spec: { serverName: "e.example" } }]);
        const kept = Date.parse(String(e!["keptUntil"])) - Date.parse(String(e!["deletedAt"]));
        expect(kept).toBe(30 * 86_400_000);
        const of = { apiVersion: "synapse-shards.io/v1alpha1", kind: "SynapseTenant", metadata: { name: "other" } };
        await cluster.apply([{ ...of, spec: { clusterId: "synapse-shards", serverName: "e.example" } }]);
        await inNamespace(
          "wait",
          "synapsetenant/other",
          "--for=jsonpath={.status.reason}=NameReserved",
          "--timeout=120s",
        );
        await inNamespace("delete", "synapsetenant", "other", "--timeout=120s");
        await cluster.api("POST", "/v1/deleted-tenants/e/undelete");
        await cluster.running("e");
        const back = JSON.parse(await inNamespace("get", "synapsetenant", "e", "-o", "json")) as { spec: object };
        expect(back.spec).toEqual(spec);
        const proof = await cluster.api("DELETE", "/v1/deleted-tenants/d");
        expect(proof).toMatchObject({
          name: "d",
          reason: "Requested",
          removed: { left: [/\/d$/, /bucket-d$/].map((part) => expect.stringMatching(part) as string) },
        });
        expect(await items("/v1/purges")).toEqual([proof]);
        expect(await items("/v1/deleted-tenants")).toEqual([]);
      },
      8 * MINUTES,
    );

    it(
      "knows after a change of leaders what a tenant took",
      async () => {
        const requestsOf = async () => {
          const { items } = (await cluster.api("GET", "/v1/usage?tenant=a")) as { items: { requests: number }[] };
          return items.reduce((sum, { requests }) => sum + requests, 0);
        };
        const before = await requestsOf();
        expect(before).toBeGreaterThan(100);
        await inNamespace("delete", "pod", await cluster.leader(), "--wait=true");
        const after = await until("another leader answers", () => requestsOf().catch(() => undefined));
        expect(after).toBeGreaterThanOrEqual(before);
        expect(await inNamespace("get", "secrets", "-o", "name")).toContain("synapse-shards.usage.0");
      },
      8 * MINUTES,
    );

    it(
      "leaves nothing behind without tenants and releases but what is kept of them",
      async () => {
        for (const name of ["a", "b", "c", "e"]) await cluster.uninstallTenant(name);
        await until(
          "no shard is left",
          async () => (await inNamespace("get", "synapseshards,statefulsets", "-o", "name")) === "",
          120,
        );
        await helm("uninstall", "synapse-shards", "-n", cluster.namespace, "--wait");
        const kinds =
          "deployments,statefulsets,services,secrets,configmaps,roles,rolebindings,serviceaccounts,leases,poddisruptionbudgets,synapsetenants,synapseshards,synapsefleets";
        const own = ["configmap/kube-root-ca.crt", "serviceaccount/default", "service/postgres", "service/s3"];
        const left = async () =>
          (await inNamespace("get", kinds, "-o", "name"))
            .split("\n")
            .filter((name) => name !== "" && !own.includes(name) && !name.startsWith("secret/sh.helm"))
            // As many as the audit log takes, and the levels of the plots' history.
            .filter((name) => !/^secret\/synapse-shards\.(audit\.\d+|history\.\w+)$/.test(name));
        // What belongs to an object that is gone is collected a moment later.
        await expect
          .poll(left)
          .toEqual([
            "secret/synapse-shards.a.deleted",
            "secret/synapse-shards.audit",
            ...["b", "c", "e"].map((name) => `secret/synapse-shards.${name}.deleted`),
            "secret/synapse-shards.purges.0",
            "secret/synapse-shards.usage.0",
            "lease.coordination.k8s.io/synapse-shards-controller",
          ]);
      },
      8 * MINUTES,
    );
  },
);

/** `kill -9` of a container's first process, from its node, which must be this machine: within the pod nobody can. */
async function killContainer(id: string): Promise<void> {
  const found = await run("sh", ["-c", `grep -l ${id} /proc/[0-9]*/cgroup 2>/dev/null || true`]);
  for (const file of found.split("\n").filter((line) => line !== "")) {
    const pid = Number(file.split("/")[2]);
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (command.includes("multi_synapse")) process.kill(pid, "SIGKILL");
  }
}
