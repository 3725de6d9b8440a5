import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Tenant } from "../../src/model/tenant.ts";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeEach(async () => {
  cluster = await startClusterUnderTest({ here: true });
  cluster.service.addShard("1.163.2-0");
  cluster.service.addShard("1.163.2-1");
});
afterEach(() => cluster.close());

const running = (name: string) => cluster.service.run(cluster.service.addTenant(name), "1.163.2-0");
const specOf = (name: string) => cluster.service.tenants.get(name)?.spec;

/** Lets something happen to a tenant a little later, as in a real cluster. */
const later = (happen: (tenant: Tenant) => void) => (tenant: Tenant) => void setTimeout(() => happen(tenant), 600);

describe("tenant create", () => {
  test("options arrive at the API", async () => {
    const config = await cluster.write("overrides.yaml", "allow_guest_access: true\n");
    const options = ["--server-name", "a.example:8448", "--release", "1.157.2", "--config", config];
    expect(await cluster.cli(["tenant", "create", "clinic-a", ...options])).toMatchInlineSnapshot(`
      {
        "code": 0,
        "stderr": "",
        "stdout": "tenant clinic-a created; its URL is http://a.example:8448:8008
      ",
      }
    `);
    expect(specOf("clinic-a")).toEqual({
      serverName: "a.example:8448",
      release: "1.157.2",
      config: "allow_guest_access: true\n",
      reclaimPolicy: "Retain",
    });
  });

  test("a plan and quotas of its own arrive at the API, are changed and removed", async () => {
    const quotas = ["--quota", "mediaBytes=10G", "--quota", "users=70", "--quota", "soft.users=60"];
    await cluster.printed("tenant", "create", "clinic-a", "--plan", "small", ...quotas);
    expect(specOf("clinic-a")).toMatchObject({
      plan: "small",
      quotas: { mediaBytes: 10_737_418_240, users: 70, soft: { users: 60 } },
    });
    expect(await cluster.printed("tenant", "quotas", "clinic-a")).toMatch(
      /clinic-a: plan small; measured .* ago\nQUOTA +USED +SOFT +HARD *\nusers +45 +40 +50 +soft limit reached\nuploadBytes +- +- +10\.0 MiB/,
    );
    await cluster.printed("tenant", "update", "clinic-a", "--plan", "none", "--no-quotas");
    expect(specOf("clinic-a")).toMatchObject({ quotas: {} });
    expect(specOf("clinic-a")?.plan).toBeUndefined();
    for (const wrong of ["user=1", "users", "users=-1", "mediaBytes=10GB", "soft.uploadBytes=1"])
      expect((await cluster.cli(["tenant", "update", "clinic-a", "--quota", wrong])).code).toBe(2);
    cluster.service.plans.push({ name: "small", quotas: { users: 50, soft: { mediaBytes: 1024 ** 2 } }, tenants: 1 });
    expect(await cluster.printed("plan", "list")).toMatchInlineSnapshot(`
      "
      PLAN    TENANTS   QUOTAS
      small   1         users 50, mediaBytes 1.0 MiB (soft)
      "
    `);
  });

  test("notifications are listed and tested", async () => {
    expect(await cluster.printed("notifications", "list")).toMatchInlineSnapshot(`
      "
      CHANNEL   KIND      TOPICS   LAST SENT   PROBLEM
      ops       webhook   quota    -           it answers with 500
      "
    `);
    expect(await cluster.cli(["notifications", "test"])).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: the test by ops failed
      ",
        "stdout": "ops: it answers with 500
      night: it was taken
      ",
      }
    `);
  });

  test("--wait returns when the tenant runs", async () => {
    cluster.service.onCreate = later((tenant) => cluster.service.run(tenant, "1.163.2-0"));
    expect(await cluster.cli(["tenant", "create", "clinic-a", "--wait"])).toMatchInlineSnapshot(`
      {
        "code": 0,
        "stderr": "",
        "stdout": "tenant clinic-a is running at http://clinic-a.localhost:8008
      ",
      }
    `);
    expect(cluster.service.tenants.get("clinic-a")?.status.phase).toBe("Running");
  });

  test("--wait ends when the tenant fails, and says why", async () => {
    cluster.service.onCreate = later((tenant) => cluster.service.fail(tenant, "InvalidConfig", "line 1 is not YAML"));
    expect(await cluster.cli(["tenant", "create", "clinic-a", "--wait"])).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: tenant clinic-a failed: line 1 is not YAML (InvalidConfig)
      ",
        "stdout": "",
      }
    `);
  });

  test("--wait takes a full cluster for no failure, and waits up to its time-out", async () => {
    cluster.service.onCreate = ({ status }) => {
      Object.assign(status, { reason: "MaxShardsReached", message: "all 5 shards of 1.163.2 are full" });
    };
    expect(await cluster.cli(["tenant", "create", "clinic-a", "--wait", "--timeout", "1s"])).toMatchInlineSnapshot(`
      {
        "code": 4,
        "stderr": "error: tenant clinic-a: not done within 1 s: clinic-a is Pending: all 5 shards of 1.163.2 are full (MaxShardsReached)
      ",
        "stdout": "",
      }
    `);
  });

  test("refuses what is not a mapping in YAML, with its place and without its content", async () => {
    const refused = async (name: string, text: string) =>
      cluster.cli(["tenant", "create", "clinic-a", "--config", await cluster.write(name, text)]);
    expect(await refused("broken.yaml", "a: 1\npassword: [hunter2\nb: 2\n")).toEqual({
      code: 2,
      stderr:
        "error: DATA/broken.yaml:3:1: not YAML: Flow sequence in block collection must be sufficiently indented and end with a ]\n",
      stdout: "",
    });
    expect(await refused("list.yaml", "# settings\n- a: 1\n")).toEqual({
      code: 2,
      stderr: "error: DATA/list.yaml:2:1: not a YAML mapping of settings to values\n",
      stdout: "",
    });
    expect(await refused("deep.yaml", "[".repeat(50_000))).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^error: DATA\/deep.yaml:\d+:\d+: not YAML.{1,200}\n$/),
    });
    expect(specOf("clinic-a")).toBeUndefined();
  });

  test("reads a configuration from stdin", async () => {
    const { code } = await cluster.cli(["tenant", "create", "clinic-a", "--config", "-"], { stdin: "a: 1\n" });
    expect([code, specOf("clinic-a")?.config]).toEqual([0, "a: 1\n"]);
  });
});

describe("tenant update", () => {
  test("--wait does not take the state before for the new one", async () => {
    running("clinic-a");
    cluster.service.onUpdate = later((tenant) => cluster.service.run(tenant, "1.163.2-1"));
    const updated = await cluster.cli(["tenant", "update", "clinic-a", "--release", "1.157.2", "--wait"]);
    expect(updated).toMatchInlineSnapshot(`
      {
        "code": 0,
        "stderr": "",
        "stdout": "tenant clinic-a runs as updated
      ",
      }
    `);
    expect(cluster.service.tenants.get("clinic-a")).toMatchObject({
      spec: { release: "1.157.2" },
      status: { observedGeneration: 2 },
    });
  });

  test("--wait and describe show what in the configuration is probably a mistake", async () => {
    running("clinic-a");
    cluster.service.onUpdate = later((tenant) => {
      cluster.service.run(tenant, "1.163.2-0");
      tenant.status.inEffect = {
        hash: "h",
        meaning: { database: null, hosts: [], publicBaseUrl: "https://clinic-a.example/", bucket: null },
        warnings: ["max_upload_sise: no such option; the nearest is max_upload_size"],
      };
    });
    const file = await cluster.write("typo.yaml", "max_upload_sise: 10M\n");
    expect(await cluster.cli(["tenant", "update", "clinic-a", "--config", file, "--wait"])).toEqual({
      code: 0,
      stderr: "warning: max_upload_sise: no such option; the nearest is max_upload_size\n",
      stdout: "tenant clinic-a runs as updated\n",
    });
    expect(await cluster.printed("tenant", "describe", "clinic-a")).toMatch(
      /Processor: +13 % of a core, may take 25 %\n.*Memory: +321 cache entries; 1\.9 MiB answered and 1234 rows.*\n.*Database: +8\.6 MiB/,
    );
    expect(await cluster.printed("tenant", "describe", "clinic-a")).toMatch(
      /Warning: +max_upload_sise: no such option/,
    );
  });

  test("--wait does not take an earlier failure for one of the update", async () => {
    const tenant = cluster.service.addTenant("clinic-a");
    cluster.service.fail(tenant, "InvalidConfig", "broken");
    cluster.service.onUpdate = later(() => cluster.service.run(tenant, "1.163.2-0"));
    const mended = await cluster.cli(["tenant", "update", "clinic-a", "--config", "-", "--wait"], { stdin: "a: 1" });
    expect([mended.code, mended.stderr]).toEqual([0, ""]);
  });

  test("--wait ends when the database cannot go to the release", async () => {
    running("clinic-a");
    cluster.service.onUpdate = later(({ status }) => {
      status.refusedRelease = { release: "1.100.0", reason: "SchemaTooNew", message: "its database has schema 94" };
    });
    expect(await cluster.cli(["tenant", "update", "clinic-a", "--release", "1.100.0", "--wait"]))
      .toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: tenant clinic-a stays on its present release: its database has schema 94 (SchemaTooNew)
      ",
        "stdout": "",
      }
    `);
  });

  test("says where a tenant is wanted, and refuses what is no placement", async () => {
    running("a");
    const where = "shard=1.163.2-1,spread-from=b,spread-from=c,until=2030-01-31T06:00:00Z";
    expect((await cluster.cli(["tenant", "update", "a", "--placement", where])).code).toBe(0);
    expect(specOf("a")?.placement).toEqual({
      shard: "1.163.2-1",
      spreadFrom: ["b", "c"],
      doNotMoveUntil: "2030-01-31T06:00:00.000Z",
    });
    const refused = await cluster.cli(["tenant", "update", "a", "--placement", "near=b"]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('"near=b" is none of "anywhere", "shard=NAME", "isolate", "spread-from=TENANT"');
  });

  test("asks for a process of its own, waits until it is alone there, and takes that back", async () => {
    running("a");
    running("b");
    cluster.service.onUpdate = (tenant) => {
      // As its planner and mover would: first it takes note, then it moves.
      cluster.service.run(tenant, "1.163.2-0");
      setTimeout(() => cluster.service.run(tenant, "1.163.2-1"), 600);
    };
    const { code } = await cluster.cli(["tenant", "update", "a", "--isolation", "dedicated", "--wait"]);
    expect([code, specOf("a")?.isolation]).toEqual([0, "dedicated"]);
    expect(cluster.service.tenants.get("a")?.status.shard).toBe("1.163.2-1");
    expect((await cluster.cli(["tenant", "update", "a", "--isolation", "shared"])).code).toBe(0);
    expect(specOf("a")).not.toHaveProperty("isolation");
    expect((await cluster.cli(["tenant", "update", "a", "--isolation", "alone"])).code).toBe(2);
  });

  test("refuses an update of nothing", async () => {
    expect(await cluster.cli(["tenant", "update", "clinic-a"])).toMatchInlineSnapshot(`
      {
        "code": 2,
        "stderr": "error: nothing to change: give --release, --config, --hibernation, --placement, --isolation, --label, --plan, --quota, --metrics or --revert-config
      ",
        "stdout": "",
      }
    `);
  });
});

describe("tenant sleep, tenant wake", () => {
  test("say what came of it, and why a tenant cannot sleep", async () => {
    running("clinic-a");
    cluster.service.keepsAwake = ["a transaction for the application service bridge"];
    expect(await cluster.cli(["tenant", "sleep", "clinic-a"])).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: clinic-a cannot sleep now: a transaction for the application service bridge
      ",
        "stdout": "",
      }
    `);
    expect(await cluster.printed("tenant", "describe", "clinic-a")).toMatch(
      /Kept awake: +a transaction for the application service bridge/,
    );
    cluster.service.keepsAwake = [];
    expect(await cluster.printed("tenant", "sleep", "clinic-a", "--wait")).toMatchInlineSnapshot(`
      "
      tenant clinic-a is asleep
      "
    `);
    const { sleep } = cluster.service.tenants.get("clinic-a")!.status;
    sleep!.nextWake = { at: "2030-01-01T00:00:00Z", reason: "a delayed event" };
    expect(await cluster.printed("tenant", "describe", "clinic-a")).toMatch(
      /Wakes: +2030-01-01T00:00:00Z at the latest: a delayed event/,
    );
    expect(await cluster.printed("tenant", "wake", "clinic-a", "--wait")).toMatchInlineSnapshot(`
      "
      tenant clinic-a is awake
      "
    `);
  });
});

describe("labels", () => {
  test("are given and changed, and select tenants for lists and for what is done to several", async () => {
    await cluster.cli(["tenant", "create", "a", "--label", "plan=small", "--label", "trial="]);
    await cluster.cli(["tenant", "create", "b", "--label", "plan=large"]);
    expect(specOf("a")?.labels).toEqual({ plan: "small", trial: "" });
    await cluster.cli(["tenant", "update", "a", "--label", "region=eu", "--label", "trial-"]);
    expect(specOf("a")?.labels).toEqual({ plan: "small", region: "eu" });
    const listed = await cluster.printed("tenant", "list", "-l", "plan,region!=eu", "-o", "json");
    expect((JSON.parse(listed) as { name: string }[]).map(({ name }) => name)).toEqual(["b"]);
    expect(await cluster.printed("tenant", "suspend", "-l", "plan=small", "--wait")).toMatchInlineSnapshot(`
      "
      tenant a is suspended
      "
    `);
    expect(await cluster.cli(["tenant", "suspend", "-l", "plan=none"])).toMatchInlineSnapshot(`
      {
        "code": 0,
        "stderr": "no tenant has the labels plan=none
      ",
        "stdout": "",
      }
    `);
    // Who selects may be wrong about what that is: a person is asked, a script says --yes.
    expect(await cluster.cli(["tenant", "delete", "-l", "plan=large"])).toMatchObject({ code: 2 });
    expect(await cluster.cli(["tenant", "delete", "-l", "plan=large", "--yes"])).toMatchObject({ code: 0 });
    expect([...cluster.service.tenants.keys()]).toEqual(["a"]);
  });

  test("that are wrong are refused with what is allowed", async () => {
    const problem = async (...args: string[]) => {
      const { code, stderr } = await cluster.cli(["tenant", ...args]);
      return [code, stderr];
    };
    expect([
      await problem("list", "-l", "plan=a=b"),
      await problem("create", "c", "--label", "plan"),
      await problem("suspend"),
      await problem("suspend", "a", "-l", "plan=small"),
    ]).toMatchInlineSnapshot(`
      [
        [
          2,
          "error: option '-l, --selector <selector>' argument 'plan=a=b' is invalid. selector, part "plan=a=b": "a=b" is no value of a label: at most 63 of A-Z, a-z, 0-9 and "-_.", beginning and ending with a letter or digit, or empty
      (add --help for what is allowed)
      ",
        ],
        [
          2,
          "error: option '--label <label>' argument 'plan' is invalid. it is KEY=VALUE
      (add --help for what is allowed)
      ",
        ],
        [
          2,
          "error: name the tenants, or select them with --selector
      ",
        ],
        [
          2,
          "error: name the tenants, or select them with --selector
      ",
        ],
      ]
    `);
  });
});

describe("tenant suspend, tenant resume", () => {
  test("act on several tenants; one wrong name does not keep the others from it", async () => {
    running("a");
    running("b");
    expect(await cluster.cli(["tenant", "suspend", "a", "nobody", "b", "--wait"])).toMatchInlineSnapshot(`
      {
        "code": 3,
        "stderr": "error: there is no tenant nobody
      ",
        "stdout": "tenant a is suspended
      tenant b is suspended
      ",
      }
    `);
    expect(cluster.service.tenants.get("b")?.status.phase).toBe("Suspended");
    expect(await cluster.printed("tenant", "resume", "a", "b", "--wait")).toMatchInlineSnapshot(`
      "
      tenant a runs again
      tenant b runs again
      "
    `);
    expect(specOf("a")?.suspended).toBeUndefined();
  });
});

describe("tenant delete", () => {
  test("says what becomes of the data", async () => {
    for (const name of ["a", "b", "c"]) running(name);
    expect(await cluster.printed("tenant", "delete", "a", "--wait")).toMatchInlineSnapshot(`
      "
      deleted tenant a; its database and media are kept (tenant list --deleted shows until when)
      "
    `);
    expect(await cluster.printed("tenant", "delete", "b", "--purge", "--yes")).toMatchInlineSnapshot(`
      "
      deleted tenant b; its database and media were removed
      "
    `);
    cluster.service.onDelete = () => {};
    expect(await cluster.printed("tenant", "delete", "c", "--no-wait")).toMatchInlineSnapshot(`
      "
      deleting tenant c; its database and media are kept (tenant list --deleted shows until when)
      "
    `);
  });

  test("refuses a purge where it has nobody to ask, and no --yes", async () => {
    running("a");
    expect(await cluster.cli(["tenant", "delete", "a", "--purge"])).toMatchInlineSnapshot(`
      {
        "code": 2,
        "stderr": "error: nothing was deleted: this cannot be undone, and there is no terminal to ask at; give --yes
      ",
        "stdout": "",
      }
    `);
    expect(cluster.service.tenants.has("a")).toBe(true);
  });

  test("shows the deleted, has one back, and prints what remains of one that is purged", async () => {
    for (const name of ["a", "b"]) running(name);
    await cluster.cli(["tenant", "delete", "a", "b"]);
    const listed = await cluster.printed("tenant", "list", "--deleted");
    expect(listed.replaceAll(/\d+[smhd] ago/g, "AGO").replaceAll(/ {2,}/g, "  ")).toMatchInlineSnapshot(`
      "
      NAME  SERVER NAME  DELETED  KEPT UNTIL
      a  a.localhost  AGO  2026-12-23T10:00:00.000Z
      b  b.localhost  AGO  2026-12-23T10:00:00.000Z
      "
    `);
    expect(await cluster.printed("tenant", "undelete", "a", "--wait")).toMatchInlineSnapshot(`
      "
      tenant a runs again
      "
    `);
    expect(await cluster.cli(["tenant", "purge", "b"])).toMatchObject({ code: 2, stdout: "" });
    expect(await cluster.cli(["tenant", "purge", "b", "nobody", "--yes"])).toMatchInlineSnapshot(`
      {
        "code": 3,
        "stderr": "error: nothing is kept of a deleted tenant nobody
      ",
        "stdout": "removed what was kept of b: database tenant_b (9000000 bytes), 3 media files (300 bytes), keys
      ",
      }
    `);
    expect(await cluster.printed("tenant", "purges")).toMatchInlineSnapshot(`
      "
      NAME   SERVER NAME   DELETED                    PURGED                     REASON      REMOVED                                                              SHA256
      b      b.localhost   2026-11-23T10:00:00.000Z   2026-11-23T10:00:00.000Z   Requested   database tenant_b (9000000 bytes), 3 media files (300 bytes), keys   hash-1
      "
    `);
    expect(await cluster.cli(["tenant", "list", "--deleted"])).toMatchObject({
      code: 0,
      stderr: "No deleted tenants are kept.\n",
    });
  });

  test("one wrong name does not keep the others from being deleted", async () => {
    running("a");
    running("c");
    expect(await cluster.cli(["tenant", "delete", "a", "nobody", "c"])).toMatchInlineSnapshot(`
      {
        "code": 3,
        "stderr": "error: there is no tenant nobody
      ",
        "stdout": "deleted tenant a; its database and media are kept (tenant list --deleted shows until when)
      deleted tenant c; its database and media are kept (tenant list --deleted shows until when)
      ",
      }
    `);
    expect([...cluster.service.tenants.keys()]).toEqual([]);
  });

  test("waits for a deletion up to the time-out", async () => {
    running("a");
    cluster.service.onDelete = () => {};
    expect(await cluster.cli(["tenant", "delete", "a", "--timeout", "500ms"])).toMatchInlineSnapshot(`
      {
        "code": 4,
        "stderr": "error: tenant a: not done within 0.5 s: still Deleting
      ",
        "stdout": "",
      }
    `);
  });
});

test("shows what tenants took by month, for people and for bills", async () => {
  running("a");
  const [january, february] = ["2026-01", "2026-02"].map((month) => ({
    tenant: "a",
    serverName: "a.localhost",
    month,
    cpuSeconds: 12.345,
    requests: 678,
    updatedAt: `${month}-28T00:00:00.000Z`,
  }));
  const known = {
    users: 30,
    activeUsers: 20,
    activeUsersDailyPeak: 10,
    messages: 400,
    mediaBytes: 5_000_000,
    databaseBytes: 61_250_000,
    peakRequestsPerMinute: 70,
  };
  cluster.service.usage.push(january!, { ...february!, ...known });
  expect(await cluster.printed("tenant", "usage", "a")).toMatchInlineSnapshot(`
    "
    TENANT   MONTH     USERS   ACTIVE   PER DAY   MESSAGES   MEDIA    DATABASE   CPU    REQUESTS   PEAK
    a        2026-01   -       -        -         -          -        -          12 s   678        -
    a        2026-02   30      20       10        400        5.0 MB   61.3 MB    12 s   678        70/min
    "
  `);
  expect(await cluster.printed("tenant", "usage", "-o", "csv")).toMatchInlineSnapshot(`
    "
    tenant,serverName,month,users,activeUsers,activeUsersDailyPeak,messages,mediaBytes,databaseBytes,cpuSeconds,requests,peakRequestsPerMinute,updatedAt
    a,a.localhost,2026-01,,,,,,,12.345,678,,2026-01-28T00:00:00.000Z
    a,a.localhost,2026-02,30,20,10,400,5000000,61250000,12.345,678,70,2026-02-28T00:00:00.000Z
    "
  `);
  expect(JSON.parse(await cluster.printed("tenant", "usage", "--month", "2026-01", "-o", "json"))).toEqual([january]);
  expect(await cluster.cli(["tenant", "usage", "--month", "2026-03"])).toMatchObject({
    code: 0,
    stderr: "No usage is recorded for that.\n",
  });
  expect(await cluster.cli(["tenant", "usage", "--month", "march"])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("Allowed is a month such as 2026-01.") as string,
  });
  expect(await cluster.cli(["tenant", "usage", "nobody"])).toMatchObject({ code: 3, stdout: "" });
  expect(await cluster.cli(["tenant", "list", "-o", "csv"])).toMatchInlineSnapshot(`
    {
      "code": 2,
      "stderr": "error: only tenant usage prints csv
    ",
      "stdout": "",
    }
  `);
});

describe("tenant move", () => {
  test("keeps the fields of the JSON", async () => {
    running("clinic-a");
    const { service } = cluster;
    service.onMove = (tenant, move) => void setTimeout(() => service.endMove(tenant, move, "Succeeded"), 600);
    expect(JSON.parse(await cluster.printed("tenant", "move", "clinic-a", "-o", "json"))).toStrictEqual({
      from: "1.163.2-0",
      to: "1.163.2-1",
      blackoutSeconds: 0.412,
      parkedRequests: 3,
      failedRequests: 0,
      pinnedUntil: null,
    });
    expect(await cluster.printed("tenant", "move", "clinic-a", "--to", "1.163.2-0")).toMatchInlineSnapshot(`
      "
      moved tenant clinic-a from 1.163.2-1 to 1.163.2-0: blackout 0.41 s, 3 requests parked, 0 failed; consolidation may move it again
      "
    `);
  });

  test("a move that was rolled back or refused is an error", async () => {
    running("clinic-a");
    cluster.service.onMove = (tenant, move) =>
      cluster.service.endMove(tenant, move, "RolledBack", "the new shard did not answer");
    expect(await cluster.cli(["tenant", "move", "clinic-a", "-o", "json"])).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: the move of clinic-a from 1.163.2-0 to 1.163.2-1 was rolled back: the new shard did not answer
      ",
        "stdout": "",
      }
    `);
    cluster.service.onMove = (tenant, move) =>
      cluster.service.endMove(tenant, move, "Refused", "the schema is too new");
    expect(await cluster.cli(["tenant", "move", "clinic-a"])).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: the move of clinic-a from 1.163.2-0 to 1.163.2-1 was refused: the schema is too new
      ",
        "stdout": "",
      }
    `);
  });

  test("gives the result of this move, not of an earlier one", async () => {
    running("clinic-a");
    await cluster.service.moveTenant("clinic-a");
    cluster.service.onMove = () => {};
    expect(await cluster.cli(["tenant", "move", "clinic-a", "--timeout", "700ms"])).toMatchInlineSnapshot(`
      {
        "code": 4,
        "stderr": "error: move of clinic-a from 1.163.2-1 to 1.163.2-0: not done within 0.7 s: Preparing
      ",
        "stdout": "",
      }
    `);
  });
});

describe("tenant register-user", () => {
  test("prints a generated password, and not a given one", async () => {
    running("clinic-a");
    const register = ["tenant", "register-user", "clinic-a", "-o", "json", "-u"];
    const made = JSON.parse(await cluster.printed(...register, "alice")) as { userId: string; password: string };
    expect(made).toEqual({ userId: "@alice:clinic-a.localhost", password: expect.stringMatching(/^[\w-]{20}$/) });
    const file = await cluster.write("password", "from file \nsecond line");
    expect(JSON.parse(await cluster.printed(...register, "bob", "--password-file", file, "--admin"))).toEqual({
      userId: "@bob:clinic-a.localhost",
    });
    const piped = await cluster.cli([...register, "carol", "--password-file", "-"], { stdin: "from stdin\n" });
    expect(piped.stdout).not.toContain("from stdin");
    await cluster.printed(...register, "dave", "-p", "argument");
    expect(cluster.service.users.map(({ request }) => request)).toEqual([
      { username: "alice", password: made.password, admin: false },
      { username: "bob", password: "from file ", admin: true },
      { username: "carol", password: "from stdin", admin: false },
      { username: "dave", password: "argument", admin: false },
    ]);
  });

  test("asks for exactly one password", async () => {
    running("clinic-a");
    const register = ["tenant", "register-user", "clinic-a", "-u", "alice"];
    expect(await cluster.cli([...register, "--password-file", "-"], { stdin: "" })).toMatchInlineSnapshot(`
      {
        "code": 2,
        "stderr": "error: the password is empty
      ",
        "stdout": "",
      }
    `);
    expect(await cluster.cli([...register, "--password-file", "-", "-p", "x"])).toMatchInlineSnapshot(`
      {
        "code": 2,
        "stderr": "error: give --password or --password-file, not both
      ",
        "stdout": "",
      }
    `);
    expect(cluster.service.users).toEqual([]);
  });
});

test("asks for a drain, and waits for its end with --wait", async () => {
  running("clinic-a");
  const { service } = cluster;
  const real = service.drainShard.bind(service);
  service.drainShard = async (name) => {
    if (name === "1.163.2-0") setTimeout(() => void service.shards.delete(name), 600);
    return real(name);
  };
  expect(await cluster.printed("shard", "drain", "1.163.2-0", "--wait")).toMatchInlineSnapshot(`
    "
    drained shard 1.163.2-0: 1 tenant moved, and it is stopped
    "
  `);
  expect(service.shards.has("1.163.2-0")).toBe(false);
  expect(await cluster.printed("shard", "drain", "1.163.2-1")).toMatchInlineSnapshot(`
    "
    draining shard 1.163.2-1: 0 tenants to move
    "
  `);
  expect(service.shards.get("1.163.2-1")?.spec.drain).toBe("Requested");
});
