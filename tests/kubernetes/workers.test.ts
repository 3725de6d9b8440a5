import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Method } from "matrix-js-sdk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TestUser } from "../e2e/support/matrix.ts";
import { until } from "../support/patience.ts";
import { withoutCluster } from "./support/cluster.ts";
import { Installation } from "./support/installation.ts";
import { knock } from "./support/knock.ts";
import { kubectl } from "./support/run.ts";
import { unnoticedBy } from "./support/unnoticed.ts";

const MINUTES = 60_000;
const TENANT = "outgrows";
const on = { enabled: true } as const;
/** Few, as each takes its part of the machine: one for reading, and of those that write what no other can, one that clients ask and one that processes ask. */
const WORKERS = { "client-reader": on, encryption: on, "event-persister": on, "federation-sender": on };

/** A tenant that goes between a shard and a dedicated Synapse with workers. The tests build on each other. */
describe.skipIf(withoutCluster)(
  "workers on a cluster (needs KUBECONFIG, and the images of tests/kubernetes/images)",
  () => {
    const cluster = new Installation("workers");
    const pod = `${TENANT}-synapse-0`;
    const inPod = (...args: string[]) => kubectl("-n", cluster.namespaceOf(TENANT), ...args);
    const picture = randomBytes(200_000);
    let ada: TestUser;
    let mxc = "";
    let room = "";
    let message = "";

    const isOnShard = () =>
      cluster.running(TENANT, ({ shard, lastMove }) => shard !== undefined && lastMove?.to === shard, 300);
    const isDedicated = () => cluster.running(TENANT, ({ shard }) => shard === undefined, 300);
    const unnoticed = (what: () => Promise<unknown>) =>
      unnoticedBy(ada, cluster, TENANT, async () => {
        let goesOn = true;
        const writing = async () => {
          while (goesOn) await writeOtherStreams();
        };
        await Promise.all([what().finally(() => (goesOn = false)), writing()]);
      });

    /** A message to a device and a receipt, each of which one process alone can write. */
    async function writeOtherStreams(): Promise<void> {
      await ada.client.sendToDevice("org.example.ping", new Map([[ada.client.getUserId()!, new Map([["*", {}]])]]));
      const path = `/rooms/${encodeURIComponent(room)}/receipt/m.read/${encodeURIComponent(message)}`;
      await ada.client.http.authedRequest(Method.Post, path, undefined, {});
      await sleep(100);
    }

    /** Which processes have written events since an event of the stream. */
    async function writers(): Promise<string[]> {
      const sql =
        "SELECT DISTINCT instance_name FROM (SELECT * FROM events ORDER BY stream_ordering DESC LIMIT 3) AS newest";
      return (await cluster.sql(sql, TENANT))
        .split("\n")
        .filter((name) => name !== "")
        .toSorted();
    }

    /** How many requests each kind of worker was given, by HAProxy's own count. */
    async function requests(): Promise<Map<string, number>> {
      const read = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8405/metrics').read().decode())";
      const text = await inPod("exec", pod, "-c", "synapse", "--", "python", "-c", read);
      const counts = text.matchAll(
        /^haproxy_server_http_responses_total\{proxy="([^"]+)",server="(?!main)[^"]+",code="2xx"\} (\d+)/gm,
      );
      const found = new Map<string, number>();
      for (const [, kind = "", count] of counts) found.set(kind, (found.get(kind) ?? 0) + Number(count));
      return found;
    }

    beforeAll(async () => {
      await cluster.install({});
      await cluster.createTenant(TENANT);
      await cluster.running(TENANT);
      ada = await cluster.register(TENANT, "ada");
      ({ room_id: room } = await ada.client.createRoom({}));
      ({ event_id: message } = await ada.client.sendTextMessage(room, "to be read"));
      mxc = (await ada.client.uploadContent(picture, { type: "image/png", name: "p.png" })).content_uri;
    }, 6 * MINUTES);
    afterAll(() => cluster.close(), 5 * MINUTES);

    it(
      "fails no request when it becomes dedicated with workers, which then do their part",
      async () => {
        await unnoticed(async () => {
          await cluster.helmTenant(TENANT, { dedicated: true, workers: WORKERS });
          await isDedicated();
          await inPod("wait", "--for=condition=Ready", "--timeout=240s", `pod/${pod}`);
        });
        expect((await ada.download(mxc)).equals(picture)).toBe(true);
        expect((await ada.client.whoami()).user_id).toBe(ada.client.getUserId());
        await until("event persisters write", async () =>
          (await writers()).every((name) => name.startsWith("event-persister-")),
        );
        await writeOtherStreams();
        const counts = await requests();
        for (const kind of ["client-reader", "encryption"])
          expect([kind, counts.get(kind) ?? 0]).not.toEqual([kind, 0]);
      },
      10 * MINUTES,
    );

    it(
      "lets only the cluster in, whose controller reads what its processes took",
      async () => {
        const ip = await inPod("get", "pod", pod, "-o", "jsonpath={.status.podIP}");
        for (const port of [8008, 8080, 8300, 8405, 9001])
          expect([port, await knock(cluster, ip, port)]).toEqual([port, "closed"]);
        const read = `fetch("http://${ip}:9001/_synapse/metrics").then((answer) => answer.text()).then(console.log)`;
        const told = await kubectl("-n", cluster.namespace, "exec", await cluster.leader(), "--", "node", "-e", read);
        const [, seconds] = /^multi_synapse_workers_cpu_seconds_total (.*)$/m.exec(told) ?? [];
        expect(Number(seconds)).toBeGreaterThan(0);
      },
      2 * MINUTES,
    );

    it(
      "fails no request when it comes back to a shard, and keeps what its workers wrote",
      async () => {
        const { room_id: created } = await ada.client.createRoom({});
        await ada.client.sendTextMessage(created, "by workers");
        const later = (await ada.client.uploadContent(picture, { type: "image/png", name: "q.png" })).content_uri;
        await unnoticed(async () => {
          await cluster.helmTenant(TENANT, {});
          await isOnShard();
        });
        expect(await writers()).toEqual(["master"]);
        for (const file of [mxc, later]) expect((await ada.download(file)).equals(picture)).toBe(true);
        expect((await ada.client.getJoinedRooms()).joined_rooms).toContain(created);
      },
      10 * MINUTES,
    );
  },
);
