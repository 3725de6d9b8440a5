import { X509Certificate } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AcmeAuthority } from "../../src/acme/acme-authority.ts";
import { dnsHook } from "../../src/acme/dns-hook.ts";
import { Network } from "../../src/checks/network.ts";
import { reachabilityIn } from "../../src/checks/reachability.ts";
import { CertificateKeeper } from "../../src/controller/certificates/certificate-keeper.ts";
import { CertificatesConfigSchema, type AcmeConfig } from "../../src/model/certificates.ts";
import { PublicAccessSchema, type PublicAccess } from "../../src/model/public-access.ts";
import { LocalStore } from "../../src/platforms/local/store/local-store.ts";
import { SecretBox } from "../../src/platforms/local/store/secret-box.ts";
import type { CertificateAuthority } from "../../src/ports/certificates.ts";
import type { ControllerContext } from "../../src/controller/context.ts";
import { DnsServer } from "../support/dns-server.ts";
import { FakeProcess, FakeWorld } from "../support/fake-world.ts";
import { until } from "../support/patience.ts";
import { HAS_PEBBLE, Pebble } from "../support/pebble.ts";

/** What is in the place of gateways: it answers for the account that it was told of. */
class Gate {
  readonly server: Server;
  thumbprint: string | null = null;
  readonly asked: string[] = [];
  port = 0;

  constructor() {
    this.server = createServer((request, response) => {
      this.asked.push(`${request.headers.host} ${request.url}`);
      const token = request.url?.split("/.well-known/acme-challenge/")[1];
      if (token === undefined || this.thumbprint === null) response.writeHead(404).end();
      else response.end(`${token}.${this.thumbprint}`);
    });
  }

  async listen(): Promise<void> {
    await new Promise<void>((done) => this.server.listen(0, "127.0.0.1", done));
    this.port = (this.server.address() as AddressInfo).port;
  }
}

describe.skipIf(!HAS_PEBBLE)("certificates of a real ACME server", () => {
  let dns: DnsServer;
  let gate: Gate;
  let pebble: Pebble;
  let files: string;
  let world: FakeWorld;
  let context: ControllerContext;
  let config: AcmeConfig;
  let access: PublicAccess;
  let authority: AcmeAuthority;
  const keepers: CertificateKeeper[] = [];
  const closing: Promise<void>[] = [];

  beforeEach(async () => {
    files = await mkdtemp(join(tmpdir(), "acme-"));
    dns = await DnsServer.start();
    gate = new Gate();
    await gate.listen();
    pebble = await Pebble.start({ dns: dns.address, httpPort: gate.port });
    await writeFile(join(files, "authorities.pem"), pebble.authorities);
    const acme = {
      directory: pebble.directory,
      agreeToTerms: true,
      contact: ["ops@hosting.example"],
      authorities: join(files, "authorities.pem"),
      checkEverySeconds: 0.5,
    };
    config = CertificatesConfigSchema.parse({ acme }).acme;
    access = PublicAccessSchema.parse({
      addresses: ["127.0.0.1"],
      dnsServers: [dns.address],
      connectTo: [{ port: 80, to: `127.0.0.1:${gate.port}` }],
    });
    world = new FakeWorld();
    ({ context } = new FakeProcess(world));
    await context.reader.open();
    authority = new AcmeAuthority({ config });
  });

  afterEach(async () => {
    await Promise.all(keepers.splice(0).map((keeper) => keeper.close()));
    await Promise.all(closing.splice(0));
    await authority.close();
    await pebble.stop();
    gate.server.close();
    gate.server.closeAllConnections();
    await dns.stop();
    await rm(files, { recursive: true, force: true });
  });

  const network = () => new Network({ access: () => access, allowPrivate: false });

  async function tenant(name: string, serverName: string): Promise<void> {
    dns.zone.set(serverName, { A: ["127.0.0.1"] });
    await addTenant(name, serverName);
  }

  async function addTenant(name: string, serverName: string): Promise<void> {
    const spec = { serverName, release: "1.163.2", config: "", reclaimPolicy: "Retain" as const };
    const { newTenantStatus } = await import("../../src/model/tenant.ts");
    const created = await context.store.create("Tenant", name, spec, newTenantStatus());
    context.claims.set(created);
    await until("it is read", () => context.reader.get("Tenant", name));
  }

  /** A keeper that runs; what it tells gateways reaches ours. */
  async function keep(
    by: CertificateAuthority = authority,
    more: Partial<AcmeConfig> = {},
  ): Promise<CertificateKeeper> {
    const keeper = new CertificateKeeper(context, {
      config: { ...config, ...more },
      baseDomain: "hosting.example",
      store: world.store.certificates,
      authority: by,
      reachability: reachabilityIn(network()),
      hasOwnFiles: (name) => name === "own.example",
    });
    keepers.push(keeper);
    await keeper.start();
    let known: { stream?: string; version?: number } = {};
    const follow = async (): Promise<void> => {
      while (keepers.includes(keeper)) {
        const told = await keeper.shared(known, 200);
        known = told;
        gate.thumbprint = told.thumbprint;
      }
    };
    closing.push(follow());
    return keeper;
  }

  const valid = (keeper: CertificateKeeper, name: string) =>
    until(
      `${name} has a certificate`,
      () => keeper.list().find((one) => one.name === name && one.state === "Valid"),
      undefined,
      () => JSON.stringify(keeper.list()),
    );
  const waiting = (keeper: CertificateKeeper, name: string, problem: string) =>
    until(`${name} has the problem ${problem}`, () =>
      keeper.list().find((one) => one.name === name && one.problem === problem),
    );

  it("are issued by HTTP-01 for tenants' names alone, and told to gateways with their keys", async () => {
    await tenant("z", "clinic-z.example");
    await tenant("own", "own.example");
    await addTenant("local", "clinic-a.localhost");
    const keeper = await keep();
    expect(await valid(keeper, "clinic-z.example")).toMatchObject({ tenant: "z", problem: null });
    const { certificates, names } = await keeper.shared({}, 0);
    expect(names).toEqual(["clinic-z.example"]);
    const { certificate, key } = certificates[0]!;
    const leaf = new X509Certificate(certificate);
    expect([leaf.checkHost("clinic-z.example"), leaf.ca]).toEqual(["clinic-z.example", false]);
    expect(key).toContain("PRIVATE KEY");
    expect(pebble.orders).toBe(1);
    expect(new Set(gate.asked.map((line) => line.split(/[ :]/)[0]))).toEqual(new Set(["clinic-z.example"]));
  });

  it("are sealed in the store, account and all, and found again after a restart without another order", async () => {
    const file = join(files, "store.db");
    const box = new SecretBox(Buffer.alloc(32, 7));
    const store = new LocalStore(file, { box });
    Object.assign(world.store, { certificates: store.certificates });
    await tenant("z", "clinic-z.example");
    await valid(await keep(), "clinic-z.example");
    await keepers.pop()!.close();
    const again = await keep();
    await valid(again, "clinic-z.example");
    expect((await again.shared({}, 0)).certificates).toHaveLength(1);
    expect(pebble.orders).toBe(1);
    expect(await readFile(file, "latin1")).not.toMatch(/PRIVATE KEY/);
    expect(await readFile(`${file}-wal`, "latin1").catch(() => "")).not.toMatch(/PRIVATE KEY/);
    await store.close();
  });

  it("are not ordered while a name does not lead here, or leads to what is not ours; and are as soon as it does", async () => {
    await addTenant("z", "clinic-z.example");
    const keeper = await keep();
    expect((await waiting(keeper, "clinic-z.example", "NotReachable")).message).toContain("has no address in DNS");
    dns.zone.set("clinic-z.example", { A: ["10.0.0.1"] });
    await keeper.renew("clinic-z.example");
    await until("it is looked at again", () => keeper.list()[0]?.message?.includes("no public address"));
    expect(pebble.orders).toBe(0);
    dns.zone.set("clinic-z.example", { A: ["127.0.0.1"] });
    await keeper.renew("clinic-z.example");
    await valid(keeper, "clinic-z.example");
    await expect(keeper.renew("other.example")).rejects.toMatchObject({ code: "NotFound" });
  });

  it("are one for all names below the base domain, by DNS-01 and a program that publishes records", async () => {
    const hook = join(files, "hook");
    const requests = createServer((request, response) => {
      const { searchParams } = new URL(request.url!, "http://hook");
      const [verb, name, value] = ["verb", "name", "value"].map((key) => searchParams.get(key)!) as [
        string,
        string,
        string,
      ];
      if (verb === "add") dns.zone.set(name, { TXT: [value] });
      else dns.zone.delete(name);
      response.end();
    });
    await new Promise<void>((done) => requests.listen(0, "127.0.0.1", done));
    const { port } = requests.address() as AddressInfo;
    const call = `fetch("http://127.0.0.1:${port}/?" + new URLSearchParams({ verb: process.argv[2], name: process.argv[3], value: process.argv[4] }))`;
    await writeFile(hook, `#!${process.execPath}\n${call}\n`);
    await chmod(hook, 0o700);
    const dnsBy = dnsHook({ program: hook, environment: {}, txt: (name) => network().txt(name) });
    const by = new AcmeAuthority({ config, dns: dnsBy });
    try {
      for (const name of ["a", "b"]) await addTenant(name, `${name}.hosting.example`);
      const keeper = await keep(by, { dnsHook: hook });
      await valid(keeper, "*.hosting.example");
      expect((await keeper.shared({}, 0)).names).toEqual(["*.hosting.example"]);
      expect(pebble.orders).toBe(1);
      await until("the record is removed", () => !dns.zone.has("_acme-challenge.hosting.example"));
    } finally {
      await by.close();
      requests.close();
    }
  });

  it("are renewed when somebody asks, or the authority does; the renewal names what it replaces", async () => {
    await tenant("z", "clinic-z.example");
    let window = { start: "2099-01-01T00:00:00Z", end: "2099-01-02T00:00:00Z" };
    const by = {
      register: authority.register.bind(authority),
      begin: authority.begin.bind(authority),
      complete: authority.complete.bind(authority),
      newKey: authority.newKey.bind(authority),
      thumbprintOf: authority.thumbprintOf.bind(authority),
      // What Pebble itself says, but for the times.
      renewalInfo: async (certificate: string) => {
        const said = await authority.renewalInfo(certificate);
        return said && { ...said, ...window, retryAfterSeconds: 0 };
      },
    };
    const keeper = await keep(by);
    await valid(keeper, "clinic-z.example");
    const first = await keeper.shared({}, 0);
    await until("the authority was asked", () => keeper.list()[0]?.renewAt?.startsWith("2099"));
    await keeper.renew("clinic-z.example");
    await until(
      "it is another one",
      async () => (await keeper.shared({}, 0)).certificates[0]?.certificate !== first.certificates[0]?.certificate,
    );
    expect(pebble.orders).toBe(2);
    window = { start: "2020-01-01T00:00:00Z", end: "2020-01-02T00:00:00Z" };
    await until("it is renewed", () => pebble.orders >= 3);
    window = { start: "2099-01-01T00:00:00Z", end: "2099-01-02T00:00:00Z" };
    await until("and valid", () => keeper.list()[0]?.renewAt?.startsWith("2099"));
    expect(keeper.list()[0]).toMatchObject({ state: "Valid", problem: null });
  });

  it("go on with an order that was begun when the controller was killed", async () => {
    await tenant("z", "clinic-z.example");
    const dying = Object.assign(Object.create(authority) as CertificateAuthority, {
      register: authority.register.bind(authority),
      begin: authority.begin.bind(authority),
      newKey: authority.newKey.bind(authority),
      thumbprintOf: authority.thumbprintOf.bind(authority),
      renewalInfo: authority.renewalInfo.bind(authority),
      complete: () =>
        new Promise<never>((_resolve, reject) =>
          setTimeout(() => reject(Object.assign(new Error("killed"), { code: "ECONNRESET" })), 10),
        ),
    });
    const first = await keep(dying);
    await waiting(first, "clinic-z.example", "OrderFailed");
    expect(first.list()[0]?.state).toBe("Ordering");
    await keepers.pop()!.close();
    const second = await keep();
    await second.renew("clinic-z.example");
    await valid(second, "clinic-z.example");
    expect(pebble.orders).toBe(1);
  });

  it("are bounded in number: what is beyond the limits waits for its turn", async () => {
    await tenant("a", "a.clinics.example");
    await tenant("b", "b.clinics.example");
    await tenant("c", "c.other.example");
    const keeper = await keep(authority, { ordersPerDomainAndWeek: 1 });
    await valid(keeper, "c.other.example");
    const of = (domain: string) => keeper.list().filter(({ name }) => name.endsWith(domain));
    await until("one of the two", () => of("clinics.example").some(({ state }) => state === "Valid"));
    await until("the other one waits", () => of("clinics.example").some(({ problem }) => problem === "LimitReached"));
    expect(pebble.orders).toBe(2);
  });

  it("are asked for no more while the authority says so, and that is kept over a restart", async () => {
    await tenant("z", "clinic-z.example");
    const { RateLimited } = await import("../../src/ports/certificates.ts");
    const limited = Object.assign(Object.create(authority) as CertificateAuthority, {
      register: authority.register.bind(authority),
      newKey: authority.newKey.bind(authority),
      thumbprintOf: authority.thumbprintOf.bind(authority),
      begin: async () => {
        throw new RateLimited("too many certificates", 3_600);
      },
    });
    const keeper = await keep(limited);
    await waiting(keeper, "clinic-z.example", "RateLimited");
    await keepers.pop()!.close();
    const again = await keep();
    await again.renew("clinic-z.example");
    await until("it waits on", () => again.list()[0]?.retryAt !== null);
    expect(again.list()[0]).toMatchObject({ state: "Waiting", problem: "RateLimited" });
    expect(pebble.orders).toBe(0);
  });
});
