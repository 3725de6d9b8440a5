import { expect, test } from "vitest";
import type { Wish } from "../../soak/actions.ts";
import { exceeded, judge, unsettled, type Facts } from "../../soak/oracle.ts";
import { Rests } from "../../soak/rests.ts";
import { secretsIn } from "../../soak/secrets.ts";

const LIMITS = { tenantsPerShard: 2, shardsPerTag: 1 };
const VERSION = "1.163.2";
const SHARD = `${VERSION}-0`;
const wish = (state: Wish["state"]): Wish => ({ state, version: VERSION, uploadMegabytes: 5 });
const WISHES = { here: wish("present"), kept: wish("kept"), gone: wish("absent") };

/** A cluster with which all is well. */
function healthy(): Facts {
  return {
    tenants: [
      {
        name: "here",
        version: VERSION,
        phase: "Running",
        reason: "",
        message: "",
        shard: SHARD,
        epoch: 3,
        moving: false,
        deleting: false,
        observed: true,
      },
    ],
    shards: [{ name: SHARD, version: VERSION, phase: "Ready", message: "", tenants: ["here"] }],
    processes: [{ pid: 10, shard: SHARD, version: VERSION, tenants: [{ name: "here", phase: "running", epoch: 3 }] }],
    parts: { controller: 1, gateway: 1 },
    databases: ["here", "kept"],
    roles: ["here", "kept"],
    media: ["here", "kept"],
    strangeDatabases: [],
    fences: { here: { shard: SHARD, epoch: 3 } },
    overdue: {},
    clients: { here: { status: 200, uploadBytes: 5 * 2 ** 20, messages: ["m-1", "m-0"], acknowledged: ["m-0"] } },
    absent: { kept: 404, gone: 404 },
    leaks: [],
  };
}

test("a healthy cluster, with a message that was stored and not acknowledged, is found so", () => {
  const { tenants, shards } = healthy();
  expect(judge(WISHES, healthy(), LIMITS)).toEqual([]);
  expect(unsettled(WISHES, tenants, shards)).toEqual([]);
});

const HARMS: [string, (facts: Facts) => void, RegExp][] = [
  [
    "a tenant that runs nowhere",
    (f) => (f.processes[0]!.tenants = []),
    /here ought to run on one shard, and is on no shard/,
  ],
  [
    "a tenant with two owners",
    (f) =>
      f.processes.push({
        pid: 11,
        shard: "1.163.2-1",
        version: VERSION,
        tenants: [{ name: "here", phase: "running", epoch: 2 }],
      }),
    /here ought to run on one shard, and is running on 1\.163\.2-0 and running on 1\.163\.2-1/,
  ],
  ["a tenant that is only starting", (f) => (f.processes[0]!.tenants[0]!.phase = "starting"), /is starting on/],
  [
    "a deleted tenant that goes on",
    (f) => f.processes[0]!.tenants.push({ name: "kept", phase: "running", epoch: 1 }),
    /kept was deleted and is running on/,
  ],
  ["the wrong release", (f) => (f.processes[0]!.version = "1.157.2"), /runs on Synapse 1\.157\.2 instead of 1\.163\.2/],
  [
    "a controller that is wrong about a place",
    (f) => (f.tenants[0]!.shard = "1.163.2-7"),
    /the controller says 1\.163\.2-7/,
  ],
  ["an epoch that is not the owner's", (f) => (f.fences["here"]!.epoch = 4), /its fence says 1\.163\.2-0 4/],
  ["a lost message", (f) => (f.clients["here"]!.messages = []), /has lost 1 acknowledged messages: m-0/],
  [
    "a doubled message, acknowledged or not",
    (f) => f.clients["here"]!.messages.push("m-1"),
    /has 1 messages more than once: m-1/,
  ],
  ["a tenant that does not answer", (f) => (f.clients["here"]!.status = 502), /answers a client with 502/],
  ["a client that could not look", (f) => delete f.clients["here"], /answers a client with nothing/],
  ["an old configuration", (f) => (f.clients["here"]!.uploadBytes = 1), /uploads of 1 bytes instead of 5 MB/],
  ["a deleted tenant that is routed", (f) => (f.absent["gone"] = 200), /answers 200 for gone/],
  ["data that outlive a purge", (f) => f.databases.push("gone"), /database of gone is there though it was purged/],
  ["a role that outlives a purge", (f) => f.roles.push("gone"), /role of gone is there though/],
  ["media that outlive a purge", (f) => f.media.push("gone"), /media of gone are there though/],
  ["data lost by a deletion that keeps them", (f) => (f.databases = ["here"]), /database of kept \(kept\) is gone/],
  [
    "a database that is nobody's",
    (f) => f.strangeDatabases.push("x_unfinished of tenant_here"),
    /x_unfinished of tenant_here is nobody's/,
  ],
  [
    "a stray process",
    (f) => f.processes.push({ pid: 12, shard: "old", version: VERSION, tenants: [] }),
    /process 12 is of shard old, which is not there/,
  ],
  [
    "two processes of one shard",
    (f) => f.processes.push({ pid: 12, shard: SHARD, version: "", tenants: [] }),
    /has 2 processes/,
  ],
  ["two controllers", (f) => (f.parts.controller = 2), /there are 2 processes of the controller/],
  ["a secret in a log", (f) => f.leaks.push("controller.log: a password"), /a secret is in controller\.log/],
];

test.each(HARMS)("the oracle sees %s", (_what, harm, finding) => {
  const facts = healthy();
  harm(facts);
  expect(judge(WISHES, facts, LIMITS)).toContainEqual(expect.stringMatching(finding));
});

test("too many tenants on a shard and too many shards of a release are seen at any time", () => {
  const shard = (name: string, tenants: string[]) => ({ name, version: VERSION, phase: "Ready", message: "", tenants });
  expect(exceeded([shard("a", ["1", "2", "3"]), shard("b", [])], LIMITS)).toEqual([
    expect.stringMatching(/shard a has 3 tenants, more than 2/),
    expect.stringMatching(/has 2 shards, more than 1/),
  ]);
});

test("what still moves, waits or leaves is not settled", () => {
  const { tenants, shards } = healthy();
  const [tenant] = tenants;
  const [shard] = shards;
  const of = (changes: object, shardChanges: object = {}) =>
    unsettled(WISHES, [{ ...tenant!, ...changes }], [{ ...shard!, ...shardChanges }]);
  expect(of({ moving: true })).toHaveLength(1);
  expect(of({ phase: "Failed", reason: "X", message: "why" })).toEqual(["here is Failed (X: why)"]);
  expect(of({ observed: false })).toHaveLength(1);
  expect(of({}, { version: "1.157.2" })).toEqual([`here waits for Synapse ${VERSION} on ${SHARD}`]);
  expect(of({}, { phase: "Draining" })).toEqual([`shard ${SHARD} is Draining`]);
  expect(unsettled(WISHES, [], shards)).toEqual(["here is not there"]);
  expect(unsettled({ here: wish("kept") }, tenants, shards)).toEqual(["here is not gone (Running)"]);
});

/** A tenant that nobody uses and that sleeps, as it should be. */
function asleep(): Facts {
  const facts = healthy();
  const [tenant] = facts.tenants;
  facts.tenants = [
    {
      ...tenant!,
      phase: "Asleep",
      shard: undefined,
      schemaVersion: VERSION,
      wakesAt: Date.now() + 60_000,
      wakesFor: "its daily housekeeping",
    },
  ];
  facts.shards[0]!.tenants = [];
  facts.processes[0]!.tenants = [];
  facts.fences = { here: { shard: "", epoch: 3 } };
  facts.clients = {};
  return facts;
}
const RESTING = { ...WISHES, here: { ...WISHES.here, resting: true } };

test("a tenant that nobody uses may sleep, and one that is used may not", () => {
  const { tenants, shards } = asleep();
  expect(unsettled(RESTING, tenants, shards)).toEqual([]);
  expect(judge(RESTING, asleep(), LIMITS)).toEqual([]);
  expect(unsettled(WISHES, tenants, shards)).toEqual(["here is Asleep"]);
  expect(judge(RESTING, healthy(), LIMITS)).toEqual([]);
});

test("a sleeping tenant that was to be woken, has the wrong database or runs somewhere is seen", () => {
  const facts = asleep();
  const of = (changes: object) => unsettled(RESTING, [{ ...facts.tenants[0]!, ...changes }], facts.shards);
  expect(of({ wakesAt: Date.now() - 60_000 })).toEqual([
    "here sleeps, and was to be woken 60 s ago for its daily housekeeping",
  ]);
  expect(of({ wakesAt: undefined })).toEqual(["here sleeps, and is never woken for its housekeeping"]);
  expect(of({ schemaVersion: "1.157.2" })).toEqual(["here sleeps with a database of Synapse 1.157.2"]);
  facts.overdue = { here: 90 };
  facts.processes = healthy().processes;
  expect(judge(RESTING, facts, LIMITS)).toEqual([
    `here sleeps and is running on ${SHARD}`,
    "here sleeps, and something was due 90 s ago",
  ]);
});

test("a run in which tenants rest for minutes and stay awake is no good run", () => {
  let now = 0;
  const rests = new Rests(() => now);
  const { tenants } = healthy();
  const resting = new Set(["here"]);
  // One that is still being made could not fall asleep.
  for (; now <= 200_000; now += 1_000) rests.note([{ ...tenants[0]!, phase: "Provisioning" }], resting);
  expect(rests.isOddlyAwake()).toBe(false);
  for (; now <= 400_000; now += 1_000) rests.note(tenants, resting);
  expect(rests.isOddlyAwake()).toBe(true);
  rests.note(asleep().tenants, resting);
  rests.note([{ ...tenants[0]!, wokenByTime: "2026-01-01T00:00:00Z" }], resting);
  expect(rests.isOddlyAwake()).toBe(false);
  expect(rests.describe()).toBe("1 sleeps, 1 wakes by time");
});

test("secrets are named, not shown; short words are no secrets", () => {
  const secrets = [
    { what: "a password", value: "long-enough-secret" },
    { what: "nothing", value: "short" },
  ];
  expect(secretsIn("it is long-enough-secret and short", secrets)).toEqual(["a password"]);
  expect(secretsIn("nothing of the sort", secrets)).toEqual([]);
});
