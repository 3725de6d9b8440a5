import { expect, it } from "vitest";
import { StoreClusterService } from "../../../src/controller/service/store-cluster-service.ts";
import { Controller } from "../../../src/controller/controller.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import { conditionsOf } from "../../../src/platforms/kubernetes/store/conditions.ts";
import { modify } from "../../../src/ports/store.ts";
import { SPEC, STATUS } from "../../ports/store-contract.ts";
import { FakeProcess, FakeWorld } from "../../support/fake-world.ts";

const SETTINGS = { version: "0", release: "1.163.2", baseDomain: "localhost", urlOf: () => "http://x" };
const PENDING = { ...STATUS, phase: "Pending", reason: "", message: "" } as Tenant["status"];

/** One controller after another in one world. */
class Run {
  readonly world = new FakeWorld();
  process = new FakeProcess(this.world, { policy: { maxTenantsPerShard: 2 } });
  controller = new Controller(this.process.context);

  async begin(): Promise<void> {
    await this.controller.start();
  }

  async restart(): Promise<void> {
    await this.end();
    this.process = new FakeProcess(this.world, { policy: { maxTenantsPerShard: 2 } });
    this.controller = new Controller(this.process.context);
    await this.controller.start();
  }

  async end(): Promise<void> {
    await this.controller.stop();
    this.process.kill();
  }

  /** As by kubectl: nobody looks whether it clashes with another. */
  async make(name: string, serverName: string, config = ""): Promise<void> {
    const spec = { ...SPEC, serverName, config, release: "1.163.2" };
    await this.world.store.create("Tenant", name, spec, { ...PENDING });
  }

  edit(name: string, config: string): Promise<Tenant | undefined> {
    return modify(this.world.store, "Tenant", name, ({ spec }) => void (spec.config = config));
  }

  async leave(name: string, { purge = false } = {}): Promise<void> {
    await new StoreClusterService(this.process.context, SETTINGS).deleteTenant(name, { purge });
  }

  async tenant(name: string): Promise<Tenant> {
    return (await this.world.store.get("Tenant", name))!;
  }

  route(name: string): { hosts?: string[]; state?: string } {
    return this.process.context.feed.get(name) ?? {};
  }

  startsOf(name: string): string[] {
    return this.world.log.filter((line) => line.startsWith(`start ${name} `));
  }
}

async function expectWell(run: Run, name: string): Promise<void> {
  const well = { phase: "Running", reason: "", message: "" };
  await expect.poll(async () => (await run.tenant(name)).status).toMatchObject(well);
}

async function expectReason(run: Run, name: string, reason: string): Promise<Tenant> {
  await expect.poll(async () => (await run.tenant(name)).status.reason).toBe(reason);
  return run.tenant(name);
}

async function during(test: (run: Run) => Promise<void>): Promise<void> {
  const run = new Run();
  await run.begin();
  try {
    await test(run);
  } finally {
    await run.end();
  }
}

it("does not place a second tenant of one server name, says why, and places it when the first has left with its data", () =>
  during(async (run) => {
    await run.make("first", "x.example");
    await expectWell(run, "first");
    await run.make("second", "x.example");
    const second = await expectReason(run, "second", "ServerNameTaken");
    expect(second.status).toMatchObject({
      phase: "Failed",
      message: expect.stringContaining("tenant first") as string,
    });
    expect(second.status.shard).toBeUndefined();
    const conditions = conditionsOf(second, [], "");
    expect(conditions.map(({ type, status, reason }) => [type, status, reason])).toEqual([
      ["Ready", "False", "ServerNameTaken"],
      ["Placed", "False", "ServerNameTaken"],
      ["UpToDate", "False", "ServerNameTaken"],
    ]);
    const events = await run.world.store.listEvents({ object: "Tenant/second", limit: 10 });
    expect(events.map(({ type, reason }) => [type, reason])).toEqual([["Warning", "ServerNameTaken"]]);
    expect(await run.process.context.metrics.tenantStarts.get()).toMatchObject({
      values: expect.arrayContaining([
        expect.objectContaining({ labels: { result: "ServerNameTaken" }, value: 1 }),
      ]) as unknown[],
    });
    expect(run.route("second").hosts).toEqual([]);
    expect(run.route("first")).toMatchObject({ hosts: ["x.example"], state: "serving" });
    await expectWell(run, "first");
    expect([run.startsOf("first").length, run.startsOf("second").length]).toEqual([1, 0]);
    await run.leave("first", { purge: true });
    await expectWell(run, "second");
    expect(run.route("second")).toMatchObject({ hosts: ["x.example"], state: "serving" });
  }));

it("lets the first tenant keep its name under a new controller, in whatever order it reads them", () =>
  during(async (run) => {
    await run.make("z-first", "x.example");
    await expectWell(run, "z-first");
    await run.make("a-second", "x.example");
    await expectReason(run, "a-second", "ServerNameTaken");
    await run.restart();
    await expectWell(run, "z-first");
    await expectReason(run, "a-second", "ServerNameTaken");
    expect(run.route("a-second").hosts).toEqual([]);
    expect(run.startsOf("a-second")).toEqual([]);
    expect(run.startsOf("z-first").length).toBe(1);
  }));

it("starts one of two tenants with one database; the second waits until the first names another", () =>
  during(async (run) => {
    const own = (name: string) => `database: {name: psycopg2, args: {host: db.example, user: u, dbname: ${name}}}`;
    await run.make("first", "a.example", own("one"));
    await expectWell(run, "first");
    await run.make("second", "b.example", own("one"));
    const second = await expectReason(run, "second", "DatabaseTaken");
    expect(second.status.message).toMatch(/database db.example:5432\/one belongs to tenant first already/);
    expect(run.startsOf("second")).toEqual([]);
    await run.edit("first", own("two"));
    await expectWell(run, "second");
    await expectWell(run, "first");
  }));

it("refuses a changed configuration that names another's database without stopping anything, and takes it up when that is free", () =>
  during(async (run) => {
    const own = (name: string) => `database: {name: psycopg2, args: {host: db.example, user: u, dbname: ${name}}}`;
    await run.make("first", "a.example", own("one"));
    await run.make("second", "b.example", own("two"));
    await expectWell(run, "first");
    await expectWell(run, "second");
    run.world.allowedHosts = ["b.example"];
    await run.edit("first", `${own("two")}\npublic_baseurl: https://b.example/`);
    const first = await expectReason(run, "first", "HostTaken");
    expect(first.status).toMatchObject({
      phase: "Running",
      epoch: 1,
      message: expect.stringContaining("runs on") as string,
    });
    expect(run.route("first")).toMatchObject({ hosts: ["a.example"], state: "serving" });
    expect(run.route("second")).toMatchObject({ hosts: ["b.example"], state: "serving" });
    await run.restart();
    await expectWell(run, "second");
    // While the shard is waited for, that is what is said.
    expect((await expectReason(run, "first", "HostTaken")).status.phase).toBe("Running");
    expect([run.startsOf("first").length, run.startsOf("second").length]).toEqual([1, 1]);
    await run.leave("second");
    await expectWell(run, "first");
    await expect.poll(() => run.route("first").hosts).toEqual(["a.example", "b.example"]);
    await expect.poll(() => run.startsOf("first").length).toBe(2);
  }));

it("leaves a tenant that is not placed out of rollouts", () =>
  during(async (run) => {
    await run.make("first", "x.example");
    await expectWell(run, "first");
    const spec = { ...SPEC, serverName: "x.example", release: "" };
    await run.world.store.create("Tenant", "second", spec, { ...PENDING });
    await run.make("third", "z.example");
    await expectWell(run, "third");
    await expectReason(run, "second", "ServerNameTaken");
    expect((await run.tenant("second")).status.fleetRelease).toBeUndefined();
  }));

it("refuses by the API a name, a host or a database that another tenant has", () =>
  during(async (run) => {
    const service = new StoreClusterService(run.process.context, SETTINGS);
    await service.createTenant({ name: "a", serverName: "x.example" });
    await expect(service.createTenant({ name: "b", serverName: "x.example" })).rejects.toThrow(
      "server name x.example belongs to tenant a already",
    );
    await service.createTenant({ name: "b", serverName: "y.example" });
    await expect(service.updateTenant("b", { config: "public_baseurl: https://x.example" })).rejects.toThrow(
      "host x.example belongs to tenant a already",
    );
  }));

const databaseAt = (host: string) => `database: {name: psycopg2, args: {host: ${host}, user: u, dbname: d}}`;

it("does not start a tenant with the database of another under another name of its server", () =>
  during(async (run) => {
    run.world.databaseIds.set("db.example", "7/16384").set("10.0.0.7", "7/16384").set("elsewhere", "7/16385");
    await run.make("first", "a.example", databaseAt("db.example"));
    await expectWell(run, "first");
    expect((await run.tenant("first")).status).toMatchObject({
      databaseId: "7/16384",
      inEffect: { meaning: { database: { host: "db.example" }, hosts: ["a.example"] } },
    });
    await run.make("second", "b.example", databaseAt("10.0.0.7"));
    const second = await expectReason(run, "second", "DatabaseTaken");
    expect(second.status.message).toMatch(/under another name, the one that belongs to tenant first/);
    expect(run.startsOf("second")).toEqual([]);
    await run.edit("second", databaseAt("elsewhere"));
    await expectWell(run, "second");
    // Nor does a running tenant get there, and it is not stopped for it.
    await run.edit("second", databaseAt("10.0.0.7"));
    expect((await expectReason(run, "second", "DatabaseTaken")).status).toMatchObject({ phase: "Running", epoch: 1 });
    expect(run.startsOf("first").length).toBe(1);
    await run.restart();
    await expectReason(run, "second", "DatabaseTaken");
    expect([run.startsOf("first").length, run.startsOf("second").length]).toEqual([1, 1]);
  }));

it("refuses a configuration that is no YAML at create and at update, and leaves nothing behind", () =>
  during(async (run) => {
    const service = new StoreClusterService(run.process.context, SETTINGS);
    await expect(service.createTenant({ name: "a", config: "[1, 2" })).rejects.toMatchObject({
      code: "InvalidInput",
      message: expect.stringMatching(/line 1, column \d+: not YAML/) as string,
    });
    expect(await run.world.store.get("Tenant", "a")).toBeUndefined();
    await service.createTenant({ name: "a" });
    await expect(service.updateTenant("a", { config: "a: [*x]" })).rejects.toMatchObject({ code: "InvalidInput" });
    expect((await run.tenant("a")).spec.config).toBe("");
  }));
