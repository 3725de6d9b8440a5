import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

const CREATED = "2026-11-23T10:00:00.000Z";

let cluster: ClusterUnderTest;
beforeEach(async () => void (cluster = await startClusterUnderTest()));
afterEach(() => cluster.close());

function populate() {
  const { service } = cluster;
  service.addShard("1.163.2-0");
  service.addShard("1.163.2-1", { load: undefined, address: undefined }).spec.drain = "Requested";
  service.run(service.addTenant("clinic-a"), "1.163.2-0");
  service.addTenant("clinic-b", { reason: "MaxShardsReached", message: "all 5 shards of 1.163.2 are full" });
}

describe("tenant list", () => {
  test("prints tables that people read and scripts cut", async () => {
    populate();
    expect(await cluster.printed("tenant", "list")).toMatchInlineSnapshot(`
      "
      NAME       SERVER NAME          RELEASE   PHASE     REASON             SHARD       URL
      clinic-a   clinic-a.localhost   1.163.2   Running                      1.163.2-0   http://clinic-a.localhost:8008
      clinic-b   clinic-b.localhost   1.163.2   Pending   MaxShardsReached               http://clinic-b.localhost:8008
      "
    `);
  });

  test("keeps the fields of the JSON", async () => {
    populate();
    expect(JSON.parse(await cluster.printed("tenant", "list", "-o", "json"))).toStrictEqual([
      {
        name: "clinic-a",
        serverName: "clinic-a.localhost",
        release: "1.163.2",
        phase: "Running",
        reason: null,
        shard: "1.163.2-0",
        url: "http://clinic-a.localhost:8008",
        databaseServer: null,
        epoch: 1,
        createdAt: CREATED,
        labels: {},
      },
      {
        name: "clinic-b",
        serverName: "clinic-b.localhost",
        release: "1.163.2",
        phase: "Pending",
        reason: "MaxShardsReached",
        shard: null,
        url: "http://clinic-b.localhost:8008",
        databaseServer: null,
        epoch: 0,
        createdAt: CREATED,
        labels: {},
      },
    ]);
  });

  test("YAML says the same as the JSON", async () => {
    populate();
    const json: unknown = JSON.parse(await cluster.printed("tenant", "ls", "-o", "json"));
    expect(parse(await cluster.printed("tenants", "ls", "--output=yaml"))).toStrictEqual(json);
  });

  test("says that a list is empty, and prints valid JSON for it", async () => {
    expect(await cluster.cli(["tenant", "list"])).toEqual({ code: 0, stdout: "", stderr: "No tenants found.\n" });
    expect(await cluster.cli(["tenant", "list", "-o", "json"])).toEqual({ code: 0, stdout: "[]\n", stderr: "" });
    expect(await cluster.cli(["shard", "list"])).toEqual({ code: 0, stdout: "", stderr: "No shards found.\n" });
  });

  test("keeps a tenant's control characters from the terminal", async () => {
    cluster.service.addTenant("clinic-a", { reason: "A\u001b[2JB\nC" });
    const table = await cluster.printed("tenant", "list");
    expect(table).toContain("A [2JB C");
    expect(table).not.toContain("\u001b");
  });
});

describe("one tenant", () => {
  test("shows every detail that the API has", async () => {
    populate();
    await cluster.service.moveTenant("clinic-a", { to: "1.163.2-1" });
    expect(await cluster.printed("tenant", "get", "clinic-a")).toMatchInlineSnapshot(`
      "
      NAME       SERVER NAME          RELEASE   PHASE     REASON   SHARD       URL
      clinic-a   clinic-a.localhost   1.163.2   Running            1.163.2-1   http://clinic-a.localhost:8008
      "
    `);
    expect(JSON.parse(await cluster.printed("tenant", "get", "clinic-b", "-o", "json"))).toMatchInlineSnapshot(`
      {
        "address": null,
        "createdAt": "2026-11-23T10:00:00.000Z",
        "databaseServer": null,
        "deletionRequestedAt": null,
        "epoch": 0,
        "failures": 0,
        "generation": 1,
        "hasConfig": false,
        "labels": {},
        "lastMove": null,
        "message": "all 5 shards of 1.163.2 are full",
        "move": null,
        "name": "clinic-b",
        "observedGeneration": 0,
        "phase": "Pending",
        "reason": "MaxShardsReached",
        "release": "1.163.2",
        "retryAt": null,
        "serverName": "clinic-b.localhost",
        "shard": null,
        "url": "http://clinic-b.localhost:8008",
        "warnings": [],
      }
    `);
    expect(await cluster.printed("tenant", "get", "clinic-a", "-o", "yaml")).toMatchInlineSnapshot(`
      "
      name: clinic-a
      serverName: clinic-a.localhost
      release: 1.163.2
      phase: Running
      reason: null
      shard: 1.163.2-1
      databaseServer: null
      url: http://clinic-a.localhost:8008
      epoch: 2
      createdAt: 2026-11-23T10:00:00.000Z
      labels: {}
      message: null
      address: 127.0.0.1:9100
      deletionRequestedAt: null
      generation: 1
      observedGeneration: 1
      failures: 0
      retryAt: null
      hasConfig: false
      warnings: []
      move: null
      lastMove:
        id: move-1
        from: 1.163.2-0
        to: 1.163.2-1
        reason: Requested
        outcome: Succeeded
        finishedAt: 2026-11-23T10:00:00.000Z
        blackoutSeconds: 0.412
        parkedRequests: 3
        failedRequests: 0
      "
    `);
  });

  test("shows a configuration only when asked", async () => {
    cluster.service.addTenant("clinic-a", {}, "allow_guest_access: true # hunter2");
    expect(await cluster.printed("tenant", "get", "clinic-a", "-o", "yaml")).not.toContain("hunter2");
    expect(await cluster.printed("tenant", "get", "clinic-a", "-o", "yaml", "--show-config")).toContain("hunter2");
  });

  test("describes state, last move, failures and events", async () => {
    populate();
    const { service } = cluster;
    await service.moveTenant("clinic-a", { to: "1.163.2-1" });
    const tenant = service.tenants.get("clinic-a")!;
    service.fail(tenant, "DatabaseUnreachable", "the database db:5432 does not answer");
    tenant.status.refusedRelease = { release: "1.157.2", reason: "SchemaTooNew", message: "its schema is too new" };
    const time = new Date(Date.now() - 180_500).toISOString();
    service.addEvent(
      { type: "Normal", reason: "Moved", object: "Tenant/clinic-a", message: "moved to 1.163.2-1" },
      time,
    );
    service.addEvent({ type: "Warning", reason: "Other", object: "Tenant/clinic-b", message: "not of it" }, time);
    const text = (await cluster.printed("tenant", "describe", "clinic-a")).replaceAll(/\d+[smhd] ago/g, "AGE ago");
    expect(text).toMatchInlineSnapshot(`
      "
      Name:               clinic-a
      Server name:        clinic-a.localhost
      URL:                http://clinic-a.localhost:8008
      Synapse version:    1.163.2
      Labels:             -
      Plan:               -
      Phase:              Failed
      Reason:             the database db:5432 does not answer (DatabaseUnreachable)
      Shard:              1.163.2-1
      Address:            127.0.0.1:9100
      Epoch:              2
      Created:            2026-11-23T10:00:00.000Z (AGE ago)
      Generation:         1 (acted upon: 1)
      Own configuration:  none
      Failures:           1 in a row
      Processor:          13 % of a core, may take 25 %
      Memory:             321 cache entries; 1.9 MiB answered and 1234 rows read and written since its start
      Database:           8.6 MiB, AGE ago
      Refused release:    1.157.2: its schema is too new (SchemaTooNew)
      Hibernation:        after the cluster's time
      Last use:           12.00 s ago
      Last move:          1.163.2-0 to 1.163.2-1 (Requested): Succeeded
                          AGE ago; blackout 0.41 s, 3 requests parked, 0 failed
      Events:
        LAST SEEN   TYPE     REASON   OBJECT            MESSAGE
        3m          Normal   Moved    Tenant/clinic-a   moved to 1.163.2-1
      "
    `);
  });
});

describe("shards", () => {
  test("keeps the fields of the JSON, and shows draining", async () => {
    populate();
    expect(JSON.parse(await cluster.printed("shard", "list", "-o", "json"))).toStrictEqual([
      {
        name: "1.163.2-0",
        release: "1.163.2",
        phase: "Ready",
        tenants: 1,
        capacity: 2,
        address: "http://127.0.0.1:9001",
        load: 0.25,
        createdAt: CREATED,
      },
      {
        name: "1.163.2-1",
        release: "1.163.2",
        phase: "Draining",
        tenants: 0,
        capacity: 2,
        address: null,
        load: null,
        createdAt: CREATED,
      },
    ]);
    expect(await cluster.printed("shard", "list")).toMatchInlineSnapshot(`
      "
      NAME        RELEASE   PHASE      TENANTS   CAPACITY   LOAD   ADDRESS
      1.163.2-0   1.163.2   Ready      1         2          25%    http://127.0.0.1:9001
      1.163.2-1   1.163.2   Draining   0         2
      "
    `);
    expect(await cluster.printed("shard", "get", "1.163.2-0", "-o", "yaml")).toMatchInlineSnapshot(`
      "
      name: 1.163.2-0
      release: 1.163.2
      phase: Ready
      tenants: 1
      capacity: 2
      address: http://127.0.0.1:9001
      load: 0.25
      createdAt: 2026-11-23T10:00:00.000Z
      reason: null
      message: null
      drain: null
      lastSeen: null
      keeps: null
      tenantNames:
        - clinic-a
      "
    `);
  });
});

test("the status shows problems, saturation and moves", async () => {
  populate();
  await cluster.service.moveTenant("clinic-a", { to: "1.163.2-1" });
  cluster.service.onMove = () => {};
  await cluster.service.moveTenant("clinic-a", { to: "1.163.2-0" });
  cluster.service.problems = ["all 5 shards of 1.163.2 are full"];
  const text = (await cluster.printed("status")).replaceAll(/\d+[smhd]$/gm, "AGE");
  expect(text).toMatchInlineSnapshot(`
    "
    Version:   0.1.0, up 62m, new tenants get Synapse 1.163.2
    Tenants:   2 (1 Moving, 1 Pending)
    Gateways:  1 connected
    Policy:    maxShardsPerSynapseImageTag 5, maxTenantsPerShard 25, avgShardsLoadRedistributionThreshold 15

    IMAGE TAG   SHARDS   TENANTS   CAPACITY   SATURATED
    1.163.2     2        2         4          no

    MOVING     FROM        TO          REASON      STEP
    clinic-a   1.163.2-1   1.163.2-0   Requested   Preparing

    MOVED      FROM        TO          REASON      OUTCOME     BLACKOUT   AGE
    clinic-a   1.163.2-0   1.163.2-1   Requested   Succeeded   0.41 s     AGE

    Problems:
      all 5 shards of 1.163.2 are full
    "
  `);
});

test("prints the events asked for, in order and in a valid format", async () => {
  const { service } = cluster;
  for (const [object, reason] of [
    ["Tenant/clinic-a", "Created"],
    ["Shard/1.163.2-0", "ShardCreated"],
    ["Tenant/clinic-a", "Started"],
  ] as const) {
    service.addEvent(
      { type: "Normal", reason, object, message: `${reason} it` },
      new Date(Date.now() - 60_500).toISOString(),
    );
  }
  expect((await cluster.printed("events")).replaceAll(/^\d\d+s/gm, "60s")).toMatchInlineSnapshot(`
    "
    LAST SEEN   TYPE     REASON         OBJECT            MESSAGE
    60s         Normal   Created        Tenant/clinic-a   Created it
    60s         Normal   ShardCreated   Shard/1.163.2-0   ShardCreated it
    60s         Normal   Started        Tenant/clinic-a   Started it
    "
  `);
  const ids = async (...args: string[]) => {
    return (JSON.parse(await cluster.printed("events", "-o", "json", ...args)) as { id: number }[]).map(({ id }) => id);
  };
  expect(await ids("--for", "tenant/clinic-a")).toEqual([1, 3]);
  expect(await ids("--for", "shards/1.163.2-0")).toEqual([2]);
  expect(await ids("--after", "2")).toEqual([3]);
});

test("prints no colours to programs, nor against NO_COLOR", async () => {
  populate();
  const { stdout } = await cluster.cli(["tenant", "list"], { env: { FORCE_COLOR: "1" } });
  expect(stdout).not.toContain("\u001b");
});
