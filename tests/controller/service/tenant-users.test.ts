import { afterEach, beforeEach, expect, it } from "vitest";
import { created, runController, tenantWhen, type Run } from "../../support/controller-run.ts";
import { FakeWorld } from "../../support/fake-world.ts";

let world: FakeWorld;
let run: Run;
beforeEach(async () => {
  world = new FakeWorld();
  run = runController(world);
  await created(world, run, ["a"]);
});
afterEach(() => run.stop());

const asleep = () => tenantWhen(world, "a", "sleeps", ({ status }) => status.phase === "Asleep");
const changes = () => world.log.filter((line) => line.startsWith("change "));

it("lists the users of a tenant that sleeps, which goes on sleeping", async () => {
  await run.service.sleepTenant("a");
  await asleep();
  const { items, total } = await run.service.listUsers("a", { offset: 0, limit: 1 });
  expect([items.map(({ userId }) => userId), total]).toEqual([["@ada:a.localhost"], 2]);
  expect((await asleep()).status.wake).toBeUndefined();
});

it("changes a user on the shard that runs the tenant, by either spelling of the user's name", async () => {
  for (const user of ["ada", "@ada:a.localhost"])
    expect(await run.service.changeUser("a", user, { kind: "admin", admin: true })).toEqual({
      userId: "@ada:a.localhost",
      woken: false,
    });
  expect(changes()).toEqual(Array.from({ length: 2 }, () => "change @ada:a.localhost admin 1.163.2-0"));
});

it("wakes a tenant to change a user, and says so", async () => {
  await run.service.sleepTenant("a");
  await asleep();
  const change = { kind: "password", password: "new", logoutDevices: true } as const;
  expect(await run.service.changeUser("a", "ada", change)).toEqual({ userId: "@ada:a.localhost", woken: true });
});

it.each([
  ["nobody", "NotFound", "there is no user @nobody:a.localhost"],
  ["kept", "Conflict", "deactivation of this user is forbidden"],
  ["@ada:elsewhere.example", "InvalidInput", "allowed is NAME or @NAME:a.localhost"],
  ["", "InvalidInput", "is no user of tenant a"],
])("refuses to change %j with %s, and the reason", async (user, code, words) => {
  await expect(run.service.changeUser("a", user, { kind: "deactivate", erase: false })).rejects.toMatchObject({
    code,
    message: expect.stringContaining(words) as string,
  });
});

it("has no users of a tenant that has no database yet", async () => {
  world.fault = (call) => (call === "provision" ? new Error("not now") : undefined);
  await run.service.createTenant({ name: "b" });
  await expect(run.service.listUsers("b", { offset: 0, limit: 9 })).rejects.toMatchObject({ code: "Conflict" });
});
