import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TestUser } from "../e2e/support/matrix.ts";
import { withoutCluster } from "./support/cluster.ts";
import { Installation } from "./support/installation.ts";
import { helm, kubectl } from "./support/run.ts";
import { unnoticedBy } from "./support/unnoticed.ts";
import { until } from "../support/patience.ts";

const MINUTES = 60_000;
const TENANT = "grows";

/** One tenant, with servers whose authority only its company knows, that goes between a shard and a dedicated Synapse, and what may happen on the way. The tests build on each other. */
describe.skipIf(withoutCluster)(
  "migrations on a cluster (needs KUBECONFIG, and the images of tests/kubernetes/images)",
  () => {
    const cluster = new Installation("migration", { tls: true });
    const own = () => `${cluster.namespace}-${TENANT}`;
    const pod = () => kubectl("-n", own(), "get", "pod", `${TENANT}-synapse-0`, "-o", "json");
    const picture = randomBytes(200_000);
    let ada: TestUser;
    let mxc = "";
    let before: unknown;

    const isOnShard = () =>
      cluster.running(TENANT, ({ shard, lastMove }) => shard !== undefined && lastMove?.to === shard, 300);
    const isDedicated = () => cluster.running(TENANT, ({ shard }) => shard === undefined, 300);

    async function identity(): Promise<unknown> {
      const agent = cluster.agent;
      const { fetch } = await import("undici");
      const keys = await fetch(`${cluster.urlOf(TENANT)}/_matrix/key/v2/server`, { dispatcher: agent });
      const { server_name: name, verify_keys: verifyKeys } = (await keys.json()) as Record<string, unknown>;
      const rooms = (await ada.client.getJoinedRooms()).joined_rooms.length;
      return { name, verifyKeys, user: (await ada.client.whoami()).user_id, hasRooms: rooms > 0 };
    }

    const unnoticed = (what: () => Promise<unknown>) => unnoticedBy(ada, cluster, TENANT, what);

    async function expectAllThere(): Promise<void> {
      expect(await identity()).toEqual(before);
      expect((await ada.download(mxc)).equals(picture)).toBe(true);
    }

    beforeAll(async () => {
      await cluster.install({ controller: { allowLocalFederation: true } });
      await cluster.createTenant(TENANT);
      await cluster.running(TENANT);
      ada = await cluster.register(TENANT, "ada");
      await ada.client.createRoom({});
      mxc = (await ada.client.uploadContent(picture, { type: "image/png", name: "p.png" })).content_uri;
      before = await identity();
    }, 6 * MINUTES);
    afterAll(() => cluster.close(), 5 * MINUTES);

    it(
      "keeps users, rooms, keys and files, and fails no request, when it becomes dedicated and comes back",
      async () => {
        const there = await unnoticed(async () => {
          await cluster.helmTenant(TENANT, { dedicated: true });
          await isDedicated();
        });
        expect(there.seen.size).toBe(2);
        await expectAllThere();
        await unnoticed(async () => {
          await cluster.helmTenant(TENANT, {});
          await isOnShard();
        });
        await expectAllThere();
      },
      8 * MINUTES,
    );

    it(
      "says what a tenant refuses of its database's certificate, and starts it once that is right",
      async () => {
        // The same server by a name that is not in its certificate.
        await cluster.createTenant("doubts", { postgres: `postgres.${cluster.namespace}` });
        const refused = await until("it says so", async () => {
          const status = await cluster.status("doubts");
          return status.message.includes("sslmode verify-full") && status;
        });
        expect(refused.message).toMatch(/has a certificate that sslmode verify-full refuses: .*not in the cert/);
        await cluster.helmTenant("doubts", {});
        await cluster.running("doubts");
        await cluster.uninstallTenant("doubts");
      },
      8 * MINUTES,
    );

    it(
      "a transition ends when the leading controller is killed on the way",
      async () => {
        await unnoticed(async () => {
          await cluster.helmTenant(TENANT, { dedicated: true });
          await until("it is on its way", async () => (await transition()) !== undefined);
          await kubectl(
            "-n",
            cluster.namespace,
            "delete",
            "pod",
            await cluster.leader(),
            "--force",
            "--grace-period=0",
          );
          await isDedicated();
        });
        await expectAllThere();
      },
      8 * MINUTES,
    );

    it(
      "a dedicated Synapse whose pod is lost comes again, and nobody else has the database",
      async () => {
        const uid = (JSON.parse(await pod()) as { metadata: { uid: string } }).metadata.uid;
        await kubectl("-n", own(), "delete", "pod", `${TENANT}-synapse-0`, "--force", "--grace-period=0");
        await until("there is another pod", async () => !(await pod().catch(() => uid)).includes(uid));
        await until("it answers", () => ada.client.whoami(), 240);
        await isDedicated();
        await expectAllThere();
      },
      8 * MINUTES,
    );

    it(
      "an upgrade that does not concern Synapse does not restart it",
      async () => {
        const uid = (JSON.parse(await pod()) as { metadata: { uid: string } }).metadata.uid;
        await cluster.helmTenant(TENANT, { dedicated: true });
        await sleep(3_000);
        expect(await pod()).toContain(uid);
      },
      8 * MINUTES,
    );

    it(
      "a rollback starts, though its revision is lower than the fence's",
      async () => {
        await unnoticed(async () => {
          await helm("rollback", TENANT, "1", "-n", own());
          await isOnShard();
        });
        await expectAllThere();
        await unnoticed(async () => {
          await helm("rollback", TENANT, "2", "-n", own());
          await isDedicated();
        });
        await expectAllThere();
        await helm("test", TENANT, "-n", own(), "--timeout", "4m");
      },
      15 * MINUTES,
    );

    async function transition(): Promise<string | undefined> {
      const path = "-o=jsonpath={.status.transition.step}";
      return (await kubectl("-n", cluster.namespace, "get", "synapsetenant", TENANT, path)) || undefined;
    }
  },
);
