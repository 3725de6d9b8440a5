import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import {
  CHART,
  find,
  HOOK,
  KEYS,
  merged,
  MINIMAL,
  template,
  withoutHelm,
  type Manifest,
  type Values,
} from "./support/matrix-stack.ts";

const on = { enabled: true };
const DEDICATED = merged(MINIMAL, { synapse: { ...KEYS, asTenantHook: HOOK } });
const SOME = {
  "event-persister": { ...on, replicas: 2, resources: { limits: { memory: "1Gi" } } },
  "event-creator": on,
  "client-reader": { ...on, replicas: 2 },
  "federation-sender": { ...on, replicas: 2 },
  "initial-synchrotron": on,
  "media-repository": on,
  "typing-persister": on,
  background: on,
  synchrotron: on,
  "presence-writer": { enabled: false },
  pusher: { ...on, replicas: 0 },
};
interface Table {
  many?: boolean;
  alone?: boolean;
  streams?: Record<string, string[]>;
  duty?: string;
  paths?: string[];
  roomPaths?: string[];
}
const TABLE = parse(readFileSync(join(CHART, "files/workers.yaml"), "utf8")) as Record<string, Table>;
const ALL = Object.fromEntries(Object.keys(TABLE).map((kind) => [kind, on]));
const withoutHaproxy = spawnSync("haproxy", ["-v"]).status !== 0;

const withWorkers = (workers: Values, more: Values = {}) => template(merged(DEDICATED, { synapse: { workers } }, more));
const filesOf = (rendered: Manifest[]) => find(rendered, "ConfigMap", "clinic-a-synapse").data!;
const containersOf = (rendered: Manifest[]): any[] => find(rendered, "StatefulSet").spec.template.spec.containers;
const listenersOf = (text: string): any[] => {
  const { listeners, worker_listeners: ofWorker } = parse(text) as Record<string, any[]>;
  return (listeners ?? ofWorker)!;
};

describe.skipIf(withoutHelm)("workers of the chart matrix-stack", () => {
  const directory = mkdtempSync(join(tmpdir(), "haproxy-"));
  afterAll(() => rmSync(directory, { recursive: true }));

  it("are processes of the pod, each with a configuration of its own, beside HAProxy and Redis", async () => {
    const rendered = await withWorkers(SOME);
    const containers = containersOf(rendered);
    const names = containers.map(({ name }) => name);
    expect(names).toEqual([
      "synapse",
      "background-0",
      "client-reader-0",
      "client-reader-1",
      "event-creator-0",
      "event-persister-0",
      "event-persister-1",
      "federation-sender-0",
      "federation-sender-1",
      "initial-synchrotron-0",
      "media-repository-0",
      "synchrotron-0",
      "typing-persister-0",
      "haproxy",
      "redis",
    ]);
    for (const { name, args } of containers.slice(1, -2)) {
      const own = parse(filesOf(rendered)[`worker-${name}.yaml`]!);
      expect([own.worker_app, own.worker_name]).toEqual(["synapse.app.generic_worker", name]);
      expect(own.enable_media_repo).toBe(name === "media-repository-0" ? undefined : false);
      expect(args).toContain(`--worker=${name}`);
      expect(args).toContain(`--config-path=/etc/synapse/chart/worker-${name}.yaml`);
      // It joins the main process's claim, and has none of its own.
      expect(args.join()).not.toContain("--fence");
    }
    const persister = containers.find(({ name }) => name === "event-persister-1");
    expect(persister.resources).toEqual({ limits: { memory: "1Gi" } });
    expect(containers[1].resources).toEqual(containers[0].resources);
  });

  it("share a configuration that says who writes what, and who has which duty", async () => {
    const shared = parse(filesOf(await withWorkers(SOME))["dedicated.yaml"]!);
    expect(shared).toMatchObject({
      stream_writers: {
        events: ["event-persister-0", "event-persister-1"],
        quarantined_media_changes: ["master", "media-repository-0"],
        typing: ["typing-persister-0"],
      },
      federation_sender_instances: ["federation-sender-0", "federation-sender-1"],
      run_background_tasks_on: "background-0",
      media_instance_running_background_jobs: "media-repository-0",
      redis: { enabled: true, host: "127.0.0.1" },
    });
    expect(shared.pusher_instances).toBeUndefined();
    expect(Object.keys(shared.stream_writers)).not.toContain("presence");
    // Each process is where the others look for it.
    const rendered = filesOf(await withWorkers(SOME));
    for (const [name, { host, port }] of Object.entries<any>(shared.instance_map)) {
      const listeners = listenersOf(rendered[name === "main" ? "dedicated.yaml" : `worker-${name}.yaml`]!);
      const between = listeners.find(({ resources }) => resources?.[0].names[0] === "replication");
      expect([between.bind_addresses, between.port]).toEqual([[host], port]);
    }
  });

  it("listen to each other and to HAProxy within the pod alone, and at no port twice", async () => {
    const rendered = await withWorkers(ALL);
    const files = Object.entries(filesOf(rendered)).filter(([name]) => /^(dedicated|worker-.*)\.yaml$/.test(name));
    expect(files.length).toBe(Object.keys(TABLE).length + 1);
    const listeners = files.flatMap(([, text]) => listenersOf(text));
    const ports = [6379, 8008, 8405, ...listeners.map(({ port }) => port)];
    expect(new Set(ports).size).toBe(ports.length);
    for (const { resources, bind_addresses: addresses, type } of listeners) {
      if (type === "metrics" || ["health", "health,metrics"].includes(resources[0].names.join())) continue;
      expect(addresses).toEqual(["127.0.0.1"]);
    }
    expect(
      containersOf(rendered)
        .find(({ name }) => name === "redis")
        .args.slice(0, 2),
    ).toEqual(["--bind", "127.0.0.1"]);
    const exposed = find(rendered, "Service", "clinic-a-synapse").spec.ports.map(({ name }: { name: string }) => name);
    expect(exposed.filter((name: string) => !name.startsWith("metrics"))).toEqual(["http"]);
  });

  it.skipIf(withoutHaproxy)("have a configuration that HAProxy reads, whatever the kinds", async () => {
    for (const [number, workers] of [SOME, { pusher: on }, ALL].entries()) {
      for (const standalone of [false, true]) {
        const files = filesOf(
          await withWorkers(workers, standalone ? { synapse: { asTenantHook: { clusterId: "", namespace: "" } } } : {}),
        );
        const where = join(directory, `${number}-${standalone}`);
        for (const map of ["paths.map", "get.map"]) writeFileSync(`${where}-${map}`, files[map]!);
        writeFileSync(`${where}.cfg`, files["haproxy.cfg"]!.replaceAll("/etc/haproxy/", `${where}-`));
        for (const ANY_ADDRESS of [undefined, "[::]"]) {
          const env = { ...process.env, ANY_ADDRESS };
          const { status, stderr } = spawnSync("haproxy", ["-c", "-f", `${where}.cfg`], { encoding: "utf8", env });
          expect([status, stderr]).toEqual([0, expect.not.stringMatching(/WARNING|ALERT/)]);
        }
      }
    }
  });

  it("get the requests that are theirs; what nobody else does is the main process's", async () => {
    const files = filesOf(await withWorkers(SOME));
    const rules = files["paths.map"]!.trim()
      .split("\n")
      .map((line) => line.split(" ") as [string, string]);
    const kindOf = (path: string) => rules.find(([rule]) => new RegExp(rule).test(path))?.[1] ?? "main";
    const client = "/_matrix/client/v3";
    expect(
      [
        `${client}/sync`,
        `${client}/rooms/!a:b/send/m.room.message/1`,
        `${client}/rooms/!a:b/messages`,
        `${client}/rooms/!a:b/members`,
        `${client}/rooms/!a:b/typing/@a:b`,
        `${client}/createRoom`,
        `${client}/presence/@a:b/status`,
        "/_matrix/media/v3/upload",
        "/_matrix/client/v1/media/download/a/b",
        "/_matrix/federation/v1/send/1",
        "/_synapse/admin/v1/server_version",
      ].map(kindOf),
    ).toEqual([
      "synchrotron",
      "event-creator-by-room",
      "client-reader-by-room",
      "client-reader",
      "typing-persister",
      "event-creator",
      "main",
      "media-repository",
      "media-repository",
      "main",
      "main",
    ]);
    const backends = [...files["haproxy.cfg"]!.matchAll(/^backend (\S+)/gm)].map(([, name]) => name);
    for (const [, kind] of rules) expect(backends).toContain(kind);
  });

  it("leave no request to the main process that it cannot do, and are not ready without one that can", async () => {
    const config = filesOf(await withWorkers({ ...ALL, receipts: { ...on, replicas: 3 } }))["haproxy.cfg"]!;
    const backends = new Map(
      config
        .split(/^backend /m)
        .slice(1)
        .map((text) => [text.split("\n", 1)[0]!, text]),
    );
    const writers = Object.entries(TABLE).filter(
      ([, { streams }]) => streams !== undefined && !Object.values(streams).flat().includes("master"),
    );
    expect(writers.map(([kind]) => kind).toSorted()).toEqual([
      "account-data",
      "device-lists",
      "encryption",
      "event-persister",
      "presence-writer",
      "push-rules",
      "receipts",
      "typing-persister",
    ]);
    for (const [kind, { alone }] of writers) {
      expect([kind, alone, backends.get(kind)]).toEqual([kind, true, expect.not.stringContaining("server main ")]);
      const count = kind === "receipts" ? 3 : 1;
      expect(config).toContain(`if { path /health } { nbsrv(${kind}) lt ${count} }\n`);
    }
    expect(backends.get("media-repository")).toContain("server main ");
    expect(config.match(/path \/health/g)).toHaveLength(writers.length);
  });

  it("listen where the kernel has no IPv6 too", async () => {
    const rendered = await withWorkers(SOME);
    expect(filesOf(rendered)["haproxy.cfg"]!.match(/^ +bind .*$/gm)).toEqual([
      '  bind "${ANY_ADDRESS}:8405" v4v6',
      '  bind "${ANY_ADDRESS}:8008" v4v6',
    ]);
    const { command } = containersOf(rendered).find(({ name }) => name === "haproxy");
    const shown = (command[2] as string).replace(/exec .*/, "echo $ANY_ADDRESS");
    const said = (text: string) => spawnSync("sh", ["-c", text], { encoding: "utf8" }).stdout.trim();
    expect(said(shown.replace("/proc/net/if_inet6", "/dev/null"))).toBe("[::]");
    expect(said(shown.replace("/proc/net/if_inet6", "/nowhere"))).toBe("");
  });

  it("are no part of a tenant, whose values may have them for later, and change nothing where there are none", async () => {
    const tenant = await template(merged(DEDICATED, { synapse: { workers: SOME, asTenantHook: { enabled: true } } }));
    expect(tenant.some(({ kind }) => kind === "StatefulSet")).toBe(false);
    const without = await withWorkers({ pusher: { enabled: false } });
    expect(without).toEqual(await template(DEDICATED));
    expect(containersOf(without).map(({ name }) => name)).toEqual(["synapse"]);
  });

  it("are of every kind that the schema knows, and no other", () => {
    const schema = JSON.parse(readFileSync(join(CHART, "values.schema.json"), "utf8"));
    const kinds = schema.properties.synapse.properties.workers.properties as Record<string, { $ref: string }>;
    expect(Object.keys(kinds).toSorted()).toEqual(Object.keys(TABLE).toSorted());
    for (const [kind, { $ref }] of Object.entries(kinds))
      expect([kind, $ref]).toEqual([kind, TABLE[kind]!.many ? "#/$defs/workers" : "#/$defs/worker"]);
  });

  it.each([
    ["an unknown kind", { reader: on }, /\/synapse\/workers.*'reader' not allowed/],
    [
      "a second one of a kind that has one",
      { background: { ...on, replicas: 2 } },
      /background\/replicas.*maximum: got 2, want 1/,
    ],
    [
      "more than there are ports",
      Object.fromEntries(
        Object.keys(TABLE)
          .filter((kind) => TABLE[kind]!.many)
          .slice(0, 6)
          .map((kind) => [kind, { ...on, replicas: 17 }]),
      ),
      /synapse.workers: 102 workers; at most 100 are allowed in one pod/,
    ],
    [
      "a place for its pods",
      { pusher: { ...on, topologySpreadConstraints: [] } },
      /'topologySpreadConstraints' not allowed/,
    ],
  ])("are refused where it cannot be: %s", async (_, workers, words) => {
    await expect(withWorkers(workers)).rejects.toThrow(words);
  });
});
