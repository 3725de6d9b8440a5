import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SteadyClock } from "../../../src/model/clock.ts";
import { Claims, type Claimant } from "../../../src/controller/claims/claims.ts";
import type { ConfigMeaning } from "../../../src/model/config-meaning.ts";
import { STATUS } from "../../ports/store-contract.ts";

const OURS = { host: "postgres.ours", port: 5432 };
const ALLOWED = ["*.example", "*.svc", "x", "y", "z"];
const claims = (allowed: readonly string[] = ALLOWED) =>
  new Claims(
    ({ metadata }) => ({ ...OURS, name: `synapse_${metadata.name}` }),
    new SteadyClock(),
    () => allowed,
  );

interface Options {
  serverName?: string;
  config?: string;
  /** Seconds; younger ones have more. */
  since?: number;
  status?: Partial<Claimant["status"]>;
}

function tenant(
  name: string,
  { serverName = `${name}.example`, config = "", since = 0, status }: Options = {},
): Claimant {
  return {
    metadata: { name, creationTimestamp: new Date(since * 1000).toISOString(), resourceVersion: "1", generation: 1 },
    spec: { serverName, config, release: "1.163.2", reclaimPolicy: "Retain" },
    status: { ...STATUS, ...status },
  };
}

const database = (host: string, name: string) =>
  `database: {name: psycopg2, args: {host: ${host}, user: u, dbname: ${name}}}`;
const baseUrl = (host: string) => `public_baseurl: https://${host}/`;

it("gives a server name to the first of two tenants, tells the other whose it is, and hands it on when it is free", () => {
  const all = claims();
  all.settle();
  const heard: string[] = [];
  all.onChange((name) => heard.push(name));
  const [first, second] = [tenant("a", { serverName: "x.example" }), tenant("b", { serverName: "x.example:8448" })];
  all.set(first);
  all.set(second);
  expect(all.conflictOf(first)).toBeUndefined();
  expect(all.conflictOf(second)).toEqual({
    reason: "ServerNameTaken",
    holder: "a",
    message: "server name x.example:8448 belongs to tenant a already",
  });
  expect([all.hostsOf(first), all.hostsOf(second)]).toEqual([["x.example"], []]);
  expect(heard).toEqual([]);
  all.remove("a");
  expect(heard).toEqual(["b"]);
  expect(all.conflictOf(second)).toBeUndefined();
  expect(all.hostsOf(second)).toEqual(["x.example"]);
});

it("claims further names like a server name: the first has them, and another one waits or runs on without", () => {
  const all = claims();
  all.settle();
  const further = (...hosts: string[]) => `synapse_shards: {hosts: [${hosts.join(", ")}]}`;
  const first = tenant("a", { config: further("chat.example") });
  const second = tenant("b", { config: further("chat.example", "b.svc") });
  all.set(first);
  all.set(second);
  expect(all.hostsOf(first)).toEqual(["a.example", "chat.example"]);
  expect(all.conflictOf(second)).toEqual({
    reason: "HostTaken",
    holder: "a",
    message: "host chat.example belongs to tenant a already",
  });
  expect(all.hostsOf(second)).toEqual(["b.example", "b.svc"]);
  all.set(tenant("a"));
  expect(all.conflictOf(second)).toBeUndefined();
  expect(all.hostsOf(second)).toEqual(["b.example", "chat.example", "b.svc"]);
});

describe("hosts that a tenant may not have", () => {
  const further = (...hosts: string[]) => `synapse_shards: {hosts: [${hosts.join(", ")}]}`;

  it("do not lead to a dedicated process, which no shard checks", () => {
    const allowed = ["*.a.svc", "*.hosting.test"];
    const all = claims(allowed);
    all.settle();
    const hosts = ["web.a.svc", "web.a.svc.test", "web.b.svc", "chat.a.example", "a.hosting.test", "b.example"];
    const config = `${baseUrl("c.example")}\n${further(...hosts)}`;
    const dedicated = tenant("a", { config, status: { epoch: 1, dedicated: { address: "synapse.a.svc:8008" } } });
    all.set(dedicated);
    expect(all.hostsOf(dedicated)).toEqual(["a.example", "web.a.svc", "chat.a.example", "a.hosting.test"]);
    expect(all.hostsNotAllowed(dedicated)).toEqual(["c.example", "web.a.svc.test", "web.b.svc", "b.example"]);
    // As when its namespace is known.
    allowed.push("*.a.svc.test");
    expect(all.hostsNotAllowed(dedicated)).toEqual(["c.example", "web.b.svc", "b.example"]);
  });

  it("are not kept from whoever has them by a configuration that asks for them, and is refused", () => {
    const all = claims([]);
    all.settle();
    const status = { ...inEffect(meaning("a.example")), observedGeneration: 0 };
    for (const more of [
      undefined,
      { ...status, refusedConfig: { hash: "two", reason: "OptionNotAllowed", message: "" } },
    ])
      for (const config of [baseUrl("b.example"), further("b.example")]) {
        all.set(tenant("a", { config, status: more }));
        const other = tenant("b");
        all.set(other);
        expect(all.conflictOf(other)).toBeUndefined();
        expect(all.hostsOf(other)).toEqual(["b.example"]);
        all.remove("b");
      }
  });
});

it("ranks tenants that were there before the controller: those that ran first, then the older ones, whatever the order of the list", () => {
  const x = { serverName: "x.example" };
  const cases: [Claimant, Claimant][] = [
    [tenant("b", { ...x, since: 1 }), tenant("a", { ...x, since: 2 })],
    [tenant("a", { ...x, since: 1 }), tenant("b", { ...x, since: 1 })],
    [tenant("b", { ...x, since: 2, status: { epoch: 1, provisioned: true } }), tenant("a", { ...x, since: 1 })],
    // With the epoch of the one that had its name before.
    [tenant("b", { ...x, since: 1 }), tenant("a", { ...x, since: 2, status: { epoch: 7 } })],
    [tenant("b", { ...x, since: 2 }), tenant("a", { ...x, since: 1, status: { reason: "ServerNameTaken" } })],
  ];
  for (const [winner, loser] of cases)
    for (const order of [
      [winner, loser],
      [loser, winner],
    ]) {
      const all = claims();
      for (const each of order) all.set(each);
      all.settle();
      expect(all.conflictOf(winner)).toBeUndefined();
      expect(all.conflictOf(loser)?.holder).toBe(winner.metadata.name);
    }
});

it("keeps hosts and databases with their holder when an older tenant names them, which runs on", () => {
  const all = claims();
  all.settle();
  const running = { epoch: 3, address: "1.2.3.4:8008" };
  const old = tenant("old", { since: 1, status: running });
  const young = tenant("young", { since: 2, status: running, config: database("db.example", "young") });
  all.set(old);
  all.set(young);
  const greedy = [baseUrl("young.example"), database("DB.example", "young"), database("postgres.ours", "synapse_old")];
  const [host, theirs, own] = greedy.map((config) => tenant("old", { since: 1, status: running, config }));
  all.set(host!);
  expect(all.conflictOf(host!)).toMatchObject({ reason: "HostTaken", holder: "young" });
  expect(all.hostsOf(host!)).toEqual(["old.example"]);
  all.set(theirs!);
  expect(all.conflictOf(theirs!)).toMatchObject({
    reason: "DatabaseTaken",
    message: "database db.example:5432/young belongs to tenant young already",
  });
  expect(all.blockingConflictOf(theirs!)).toBeUndefined();
  expect(all.blockingConflictOf({ ...theirs!, status: { ...STATUS } })?.reason).toBe("DatabaseTaken");
  all.set(own!);
  expect(all.conflictOf(own!)).toBeUndefined();
  expect(all.conflictOf(young)).toBeUndefined();
  expect(all.hostsOf(young)).toEqual(["young.example"]);
});

it("keeps a newcomer out of a database made for another tenant, under any local name of the server", () => {
  const all = new Claims(
    ({ metadata: { name } }) => ({ host: "127.0.0.1", port: 5432, name: `synapse_${name}` }),
    new SteadyClock(),
    () => [],
  );
  all.settle();
  all.set(tenant("a"));
  const rival = (host: string) => all.conflictOf(tenant("b", { config: database(host, "synapse_a") }));
  expect(rival("localhost")).toMatchObject({ reason: "DatabaseTaken", holder: "a" });
  expect(rival('"::1"')?.holder).toBe("a");
  expect(rival("elsewhere.example")).toBeUndefined();
});

const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      name: fc.constantFrom("a", "b", "c", "d"),
      host: fc.constantFrom("x", "y", "z"),
      url: fc.constantFrom("x", "y", ""),
    }),
  },
  { weight: 1, arbitrary: fc.record({ gone: fc.constantFrom("a", "b", "c", "d") }) },
);

it("gives each name to exactly one tenant that asks for it, and never takes it away, whatever is written in any order", () => {
  const law = fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
    const all = claims();
    all.settle();
    const present = new Map<string, Claimant>();
    let woken = new Set<string>();
    all.onChange((name) => woken.add(name));
    for (const each of steps) {
      const rivals = new Map([...present.values()].map((one) => [one.metadata.name, all.conflictOf(one)?.holder]));
      const hosts = new Map([...present.values()].map((one) => [one.metadata.name, all.hostsOf(one)]));
      woken = new Set();
      if ("gone" in each) {
        present.delete(each.gone);
        all.remove(each.gone);
      } else {
        const one = tenant(each.name, { serverName: each.host, config: each.url && baseUrl(each.url) });
        present.set(each.name, one);
        all.set(one);
      }
      const changed = "gone" in each ? each.gone : each.name;
      const owned = [...present.values()].flatMap((one) => all.hostsOf(one));
      expect(owned.length).toBe(new Set(owned).size);
      const wanted = [...present.values()].flatMap(({ spec }) => [spec.serverName, spec.config.slice(24, 25)]);
      expect(new Set(owned)).toEqual(new Set(wanted.filter((host) => host !== "")));
      for (const [name, one] of present) {
        if (name === changed) continue;
        // Nobody loses what it had by what another does; and who has another rival, or none, is woken.
        for (const host of hosts.get(name) ?? []) expect(all.hostsOf(one)).toContain(host);
        expect(woken.has(name) || all.conflictOf(one)?.holder === rivals.get(name)).toBe(true);
      }
    }
  });
  fc.assert(law, { numRuns: 500 });
});

const meaning = (serverName: string, hosts: string[] = [], own?: string): ConfigMeaning => ({
  database: own === undefined ? null : { host: own, port: 5432, name: "d", user: "u" },
  hosts: [serverName, ...hosts],
  publicBaseUrl: `https://${serverName}/`,
  bucket: null,
});
const inEffect = (of: ConfigMeaning): Partial<Claimant["status"]> => ({
  epoch: 1,
  address: "1.2.3.4:8008",
  configHash: "one",
  observedGeneration: 1,
  inEffect: { hash: "one", meaning: of },
});

it("leads requests by what runs, not by what is asked for: a newly named host leads nowhere until something runs with it", () => {
  const all = claims();
  all.settle();
  const runs = tenant("a", { status: inEffect(meaning("a.example", ["old.example"])), config: baseUrl("old.example") });
  all.set(runs);
  expect(all.hostsOf(runs)).toEqual(["a.example", "old.example"]);
  const changed = { ...runs, spec: { ...runs.spec, config: baseUrl("new.example") } };
  all.set(changed);
  expect(all.hostsOf(changed)).toEqual(["a.example", "old.example"]);
  // Both are its own meanwhile.
  for (const host of ["old.example", "new.example"])
    expect(all.conflictOf(tenant("b", { config: baseUrl(host) }))).toMatchObject({ reason: "HostTaken", holder: "a" });
  const started = {
    ...changed,
    status: {
      ...changed.status,
      configHash: "two",
      inEffect: { hash: "two", meaning: meaning("a.example", ["new.example"]) },
    },
  };
  all.set(started);
  expect(all.hostsOf(started)).toEqual(["a.example", "new.example"]);
  expect(all.conflictOf(tenant("b", { config: baseUrl("old.example") }))).toBeUndefined();
});

it("keeps the routes of a tenant whose configuration is gone, or is no YAML any more", () => {
  const all = claims();
  all.settle();
  const runs = tenant("a", { status: inEffect(meaning("a.example", ["old.example"])), config: baseUrl("old.example") });
  all.set(runs);
  for (const config of ["", "[1, 2"]) {
    const broken = { ...runs, spec: { ...runs.spec, config } };
    all.set(broken);
    expect(all.hostsOf(broken)).toEqual(["a.example", "old.example"]);
  }
});

it("ranks what runs above what is asked for when a controller begins, whichever tenant is older", () => {
  const runs = tenant("z", {
    since: 9,
    status: inEffect(meaning("z.example", ["x.example"])),
    config: baseUrl("x.example"),
  });
  const asks = tenant("a", { since: 1, status: inEffect(meaning("a.example")), config: baseUrl("x.example") });
  // Its configuration was changed while no controller ran.
  asks.metadata.generation = 2;
  for (const order of [
    [runs, asks],
    [asks, runs],
  ]) {
    const all = claims();
    for (const one of order) all.set(one);
    all.settle();
    expect(all.conflictOf(asks)).toMatchObject({ reason: "HostTaken", holder: "z" });
    expect(all.hostsOf(runs)).toContain("x.example");
  }
});

it("finds one database behind two names, by the identity that its server reports", () => {
  const all = claims();
  all.settle();
  const holder = tenant("a", {
    status: { ...inEffect(meaning("a.example", [], "db.example")), databaseId: "7/16384" },
  });
  all.set(holder);
  const other = tenant("b", { config: database("10.0.0.7", "d") });
  all.set(other);
  expect(all.conflictOf(other)).toBeUndefined();
  const asked = { hash: "h", meaning: meaning("b.example", [], "10.0.0.7") };
  expect(all.reserve(other, { ...asked, databaseId: "7/16384" })).toEqual({
    reason: "DatabaseTaken",
    holder: "a",
    message: expect.stringMatching(/under another name, the one that belongs to tenant a/) as string,
  });
  // Known from now on, until it asks for another one.
  expect(all.conflictOf(other)).toMatchObject({ reason: "DatabaseTaken", holder: "a" });
  expect(all.reserve(other, { ...asked, databaseId: "7/16385" })).toBeUndefined();
  expect(all.reservation("b", "h")).toMatchObject({ databaseId: "7/16385" });
});

it("admits one of two tenants that ask for one database at the same time", () => {
  const all = claims();
  all.settle();
  const [first, second] = ["a", "b"].map((name) => tenant(name, { config: database(`${name}.db.example`, "d") }));
  for (const one of [first!, second!]) all.set(one);
  const ask = (one: Claimant, host: string) =>
    all.reserve(one, { hash: "h", meaning: meaning(one.spec.serverName, [], host), databaseId: "7/1" });
  expect(ask(first!, "a.db.example")).toBeUndefined();
  expect(ask(second!, "b.db.example")).toMatchObject({ reason: "DatabaseTaken", holder: "a" });
  // Another configuration of the first lets go of it.
  all.set({ ...first!, spec: { ...first!.spec, config: "" } });
  expect(ask(second!, "b.db.example")).toBeUndefined();
});

it("claims what a shard reads, where that is more than is read here", () => {
  const all = claims();
  all.settle();
  const odd = tenant("a", { config: "x: !!binary aGVsbG8=" });
  all.set(odd);
  expect(all.reserve(odd, { hash: "h", meaning: meaning("a.example", ["x.example"]) })).toBeUndefined();
  expect(all.conflictOf(tenant("b", { config: baseUrl("x.example") }))).toMatchObject({
    reason: "HostTaken",
    holder: "a",
  });
});
