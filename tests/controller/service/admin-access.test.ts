import { afterEach, beforeEach, expect, it } from "vitest";
import { adminAccessView, AdminAccessConfigSchema, adminOriginsOf } from "../../../src/model/admin-access.ts";
import { AdminAccessService, type AdminEntrance } from "../../../src/controller/service/admin-access.ts";
import { SleepService } from "../../../src/controller/service/sleep-service.ts";
import { TenantUsers } from "../../../src/controller/service/tenant-users.ts";
import type { RouteFeedLine } from "../../../src/model/routes.ts";
import { created, runController, tenantWhen, type Run } from "../../support/controller-run.ts";
import { modify } from "../../../src/ports/store.ts";
import { FakeWorld } from "../../support/fake-world.ts";

const ENTRANCE: AdminEntrance = { ...AdminAccessConfigSchema.parse({})!, listensAt: 8449 };
const urlOf = () => "http://a.localhost:8008";
const NETWORKS = ["10.0.0.0/8"];
const users = () => new TenantUsers(run.process.context, new SleepService(run.process.context));

let world: FakeWorld;
let run: Run;
let access: AdminAccessService;
beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world);
  access = new AdminAccessService(run.process.context, { adminEntrance: ENTRANCE, urlOf }, users());
  await created(world, run, ["a"]);
  await tenantWhen(world, "a", "runs", ({ status }) => status.phase === "Running");
});
afterEach(() => run.stop());

it("tells gateways before it answers that a tenant is open, and that it is closed", async () => {
  const { feed } = run.process.context;
  expect(feed.get("a")!.adminAccess).toBeUndefined();
  const opened = await access.change("a", { allowedNetworks: NETWORKS });
  expect(opened).toMatchObject({ open: true, allowedNetworks: NETWORKS, address: "https://a.localhost:8449" });
  expect(feed.get("a")).toMatchObject({ adminAccess: { allowedNetworks: NETWORKS }, state: "serving" });
  expect(await access.change("a", undefined)).toMatchObject({ open: false, allowedNetworks: [] });
  expect(feed.get("a")!.adminAccess).toBeUndefined();
});

it("waits until a gateway acts on it", async () => {
  const { feed } = run.process.context;
  const stream = feed.subscribe("gateway-1", { wakes: true });
  const lines = stream[Symbol.asyncIterator]();
  const next = async () => (await lines.next()).value as Exclude<RouteFeedLine, { type: "ping" }>;
  feed.acknowledge({ gateway: "gateway-1", version: (await next()).version, parks: {} });
  let answered = false;
  const changing = access.change("a", { allowedNetworks: [] }).then(() => (answered = true));
  const told = await next();
  expect(told.routes).toMatchObject([{ tenant: "a", adminAccess: { allowedNetworks: [] } }]);
  expect(answered).toBe(false);
  feed.acknowledge({ gateway: "gateway-1", version: told.version, parks: {} });
  await changing;
  stream.close();
});

it("stays open when the tenant moves, and says nothing of it where nothing changed", async () => {
  await access.change("a", { allowedNetworks: NETWORKS });
  await access.change("a", { allowedNetworks: NETWORKS });
  const move = await run.service.moveTenant("a");
  await tenantWhen(world, "a", "moved", ({ status }) => status.lastMove?.id === move.id);
  expect(run.process.context.feed.get("a")!.adminAccess).toEqual({ allowedNetworks: NETWORKS });
  const said: string[] = [];
  for await (const { reason } of run.service.events({ object: "Tenant/a" })) said.push(reason);
  expect(said.filter((reason) => reason.startsWith("AdminAccess"))).toEqual(["AdminAccessOpened"]);
});

it("refuses to open a tenant where the gateway has no entrance, and closes it all the same", async () => {
  await access.change("a", { allowedNetworks: NETWORKS });
  const without = new AdminAccessService(run.process.context, { urlOf }, users());
  await expect(without.change("a", { allowedNetworks: [] })).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining("gateway.adminAccess") as string,
  });
  expect(without.view((await world.store.get("Tenant", "a"))!)).toMatchObject({ open: false });
  await without.change("a", undefined);
  expect((await world.store.get("Tenant", "a"))!.spec.adminAccess).toBeUndefined();
  await expect(access.change("nobody", undefined)).rejects.toMatchObject({ code: "NotFound" });
});

it("neither opens nor closes a tenant of which its owner's object says whether it is open, and names that", async () => {
  await access.change("a", { allowedNetworks: NETWORKS });
  const said = new AdminAccessService(
    run.process.context,
    { adminEntrance: ENTRANCE, urlOf, accessSaidIn: (name) => (name === "a" ? "clinic/chat" : undefined) },
    users(),
  );
  for (const asked of [undefined, { allowedNetworks: [] }])
    await expect(said.change("a", asked)).rejects.toMatchObject({
      code: "Conflict",
      message: expect.stringContaining("is said in clinic/chat") as string,
    });
  expect((await tenant()).spec.adminAccess).toEqual({ allowedNetworks: NETWORKS });
  // Nothing would be written over.
  expect(await said.change("a", { allowedNetworks: NETWORKS })).toMatchObject({ open: true });
});

const tenant = async () => (await world.store.get("Tenant", "a"))!;

it("signs somebody in as an administrator for an hour, of a tenant that is open, and says who was meant, but not the token", async () => {
  await expect(access.openSession(await tenant(), "ada")).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining("open it first") as string,
  });
  await access.change("a", { allowedNetworks: [] });
  const session = await access.openSession(await tenant(), "ada");
  expect(session).toMatchObject({
    userId: "@ada:a.localhost",
    token: "token of ada",
    address: "https://a.localhost:8449",
  });
  expect(Date.parse(session.expiresAt) - run.process.context.clock.wall()).toBeGreaterThan(3_500_000);
  expect(world.log).toContain("session @ada:a.localhost 3600 1.163.2-0");
  const said: string[] = [];
  for await (const { reason, message } of run.service.events({ object: "Tenant/a" })) said.push(`${reason} ${message}`);
  expect(said.at(-1)).toContain("AdminSessionOpened somebody was signed in to a as its administrator @ada:a.localhost");
  expect(JSON.stringify([said, await tenant()])).not.toContain("token of ada");
});

it.each([
  ["nobody", "NotFound"],
  ["kept", "Conflict"],
  ["@ada:elsewhere.example", "InvalidInput"],
])("signs nobody in as %s, with %s", async (user, code) => {
  await access.change("a", { allowedNetworks: [] });
  await expect(access.openSession(await tenant(), user)).rejects.toMatchObject({ code });
});

it("signs nobody in to a tenant that is suspended", async () => {
  await access.change("a", { allowedNetworks: [] });
  await run.service.suspendTenant("a", { lift: false });
  await tenantWhen(world, "a", "is suspended", ({ status }) => status.phase === "Suspended");
  await expect(access.openSession(await tenant(), "ada")).rejects.toMatchObject({ code: "Unavailable" });
});

it("lets pages of the UI call, and of the origins that are named", () => {
  const config = {
    ui: "https://admin.example/ketesa/?x=y",
    origins: ["http://localhost:5173", "https://admin.example"],
  };
  expect(adminOriginsOf(AdminAccessConfigSchema.parse(config)!)).toEqual([
    "https://admin.example",
    "http://localhost:5173",
  ]);
});

it("names the address that administrators have, and the UI that goes there", () => {
  const viewOf = (entrance: Partial<AdminEntrance>) =>
    adminAccessView({ allowedNetworks: [] }, { ...ENTRANCE, ...entrance }, "https://matrix.clinic.example");
  expect(viewOf({}).address).toBe("https://matrix.clinic.example:8449");
  expect(viewOf({ tls: false, listensAt: 8450 }).address).toBe("http://matrix.clinic.example:8450");
  expect(viewOf({ tls: false, publicPort: 443 }).address).toBe("https://matrix.clinic.example");
  expect(viewOf({ ui: "https://admin.example/?username=admin" }).ui).toBe(
    "https://admin.example/?username=admin&server=https%3A%2F%2Fmatrix.clinic.example%3A8449",
  );
});

it.each([
  [{ allowedNetworks: ["10.0.0.0/40"] }, "allowedNetworks"],
  [{ allowedNetworks: ["clinic.example"] }, "allowedNetworks"],
  [{ ui: "javascript:alert(1)" }, "ui"],
  [{ port: 70_000 }, "port"],
  [{ networks: [] }, "networks"],
  [{ origins: ["https://admin.example/path"] }, "origins"],
  [{ origins: ["null"] }, "origins"],
  [{ origins: ["*"] }, "origins"],
])("refuses the configuration %j", (config, path) => {
  const { success, error } = AdminAccessConfigSchema.safeParse(config);
  expect([success, JSON.stringify(error?.issues)]).toEqual([false, expect.stringContaining(path)]);
});

it("ends the sessions that were opened in a tenant when it is closed, once, and those of nobody else", async () => {
  await access.change("a", { allowedNetworks: [] });
  for (const user of ["ada", "bob"]) await access.openSession(await tenant(), user);
  const own = "a ada 1";
  world.sessions.add(own);
  expect((await tenant()).status.adminSessions).toMatchObject([
    { userId: "@ada:a.localhost", until: expect.any(String) as string },
    { userId: "@bob:a.localhost" },
  ]);
  await access.change("a", undefined);
  expect([...world.sessions]).toEqual([own]);
  expect((await tenant()).status.adminSessions).toBeUndefined();
  await access.change("a", undefined);
  const said: string[] = [];
  for await (const { reason } of run.service.events({ object: "Tenant/a" })) said.push(reason);
  expect(said.filter((reason) => reason === "AdminSessionsEnded")).toHaveLength(1);
});

it("ends them when the tenant wakes, where it slept as it was closed, also if it is open again by then", async () => {
  await access.change("a", { allowedNetworks: [] });
  await access.openSession(await tenant(), "ada");
  await run.service.sleepTenant("a");
  await tenantWhen(world, "a", "sleeps", ({ status }) => status.phase === "Asleep");
  await access.change("a", undefined);
  expect((await tenant()).status.adminSessions).toMatchObject([{ ending: true }]);
  await access.change("a", { allowedNetworks: [] });
  expect(world.sessions.size).toBe(1);
  await run.service.wakeTenant("a");
  await tenantWhen(world, "a", "has no session", ({ status }) => status.adminSessions === undefined);
  expect(world.sessions.size).toBe(0);
});

it("ends them of a tenant that was closed in the store, and tries again where its shard does not answer", async () => {
  await access.change("a", { allowedNetworks: [] });
  await access.openSession(await tenant(), "ada");
  world.keepsSessions = true;
  await access.change("a", undefined);
  expect(world.sessions.size).toBe(1);
  world.keepsSessions = false;
  await access.change("a", undefined);
  expect(world.sessions.size).toBe(0);
  await access.change("a", { allowedNetworks: [] });
  await access.openSession(await tenant(), "ada");
  await modify(world.store, "Tenant", "a", ({ spec }) => void delete spec.adminAccess);
  await tenantWhen(world, "a", "has no session", ({ status }) => status.adminSessions === undefined);
  expect(world.sessions.size).toBe(0);
});

it("asks no shard about sessions that ended long ago", async () => {
  await access.change("a", { allowedNetworks: [] });
  const adminSessions = [{ userId: "@ada:a.localhost", until: "2001-01-01T00:00:00.000Z" }];
  world.keepsSessions = true;
  await modify(world.store, "Tenant", "a", ({ status }) => void (status.adminSessions = adminSessions));
  await access.change("a", undefined);
  await tenantWhen(world, "a", "has no session", ({ status }) => status.adminSessions === undefined);
  expect((await tenant()).status.adminSessions).toBeUndefined();
});

/** Something happens while a session is opened. */
function accessWhere(meanwhile: () => Promise<unknown>): AdminAccessService {
  return new AdminAccessService(
    run.process.context,
    { adminEntrance: ENTRANCE, urlOf },
    {
      openSession: async (...asked) => {
        const session = await users().openSession(...asked);
        await meanwhile();
        return session;
      },
    },
  );
}

it("gives nobody a session that was opened while the tenant was closed, and ends it", async () => {
  await access.change("a", { allowedNetworks: [] });
  const slow = accessWhere(() => access.change("a", undefined));
  await expect(slow.openSession(await tenant(), "ada")).rejects.toMatchObject({ code: "Conflict" });
  expect(world.sessions.size).toBe(0);
  expect((await tenant()).status.adminSessions).toBeUndefined();
});

it("gives nobody a session that was opened while the tenant left for a dedicated process", async () => {
  await access.change("a", { allowedNetworks: [] });
  const dedicated = { address: "a:8008" };
  const slow = accessWhere(() =>
    modify(world.store, "Tenant", "a", (t) => void Object.assign(t.status, { dedicated, shard: undefined })),
  );
  await expect(slow.openSession(await tenant(), "ada")).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining("left for a dedicated process") as string,
  });
});

it("has at most 100 sessions open, of which those count that have not ended", async () => {
  await access.change("a", { allowedNetworks: [] });
  const sessions = (year: string) =>
    Array.from({ length: 100 }, () => ({ userId: "@ada:a.localhost", until: `${year}-01-01T00:00:00.000Z` }));
  await modify(world.store, "Tenant", "a", ({ status }) => void (status.adminSessions = sessions("2999")));
  await expect(access.openSession(await tenant(), "ada")).rejects.toMatchObject({ code: "Conflict" });
  await modify(world.store, "Tenant", "a", ({ status }) => void (status.adminSessions = sessions("2001")));
  await access.openSession(await tenant(), "ada");
  expect((await tenant()).status.adminSessions).toHaveLength(1);
});
