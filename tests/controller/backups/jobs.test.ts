import { expect, it } from "vitest";
import { Jobs, type JobContext } from "../../../src/controller/backups/jobs.ts";
import { BackupSchedule } from "../../../src/controller/backups/schedule.ts";
import { SteadyClock } from "../../../src/model/clock.ts";
import { BackupsConfigSchema } from "../../../src/model/backup.ts";
import { UserError } from "../../../src/model/errors.ts";
import { newTenantStatus, type Tenant } from "../../../src/model/tenant.ts";
import { until } from "../../support/patience.ts";

const jobs = () => new Jobs(new SteadyClock(), () => {});

it("does what is asked for twice once, and nothing else for the tenant meanwhile", async () => {
  const all = jobs();
  const { promise, resolve } = Promise.withResolvers<string>();
  const first = all.add("Backup", "a", () => promise);
  expect(all.add("Backup", "a", async () => "never").id).toBe(first.id);
  expect(() => all.add("Restore", "a", async () => "never")).toThrow(/has a job already/);
  resolve("made");
  await until("it has ended", () => all.get(first.id)?.state === "Succeeded");
  expect(all.get(first.id)).toMatchObject({ message: "made" });
  expect(all.add("Backup", "a", async () => "another").id).not.toBe(first.id);
});

it("does nothing for a tenant that there is to be no work for, also where it waited for its turn", async () => {
  const refused = new Set(["a"]);
  const all = new Jobs(
    new SteadyClock(),
    () => {},
    (name) => (refused.has(name) ? `tenant ${name} is being renamed to z` : undefined),
  );
  expect(() => all.add("Backup", "a", async () => "never")).toThrow("tenant a is being renamed to z");
  const { promise, resolve } = Promise.withResolvers<string>();
  for (const busy of ["b", "c"]) all.add("Backup", busy, () => promise);
  const waiting = all.add("Backup", "d", async () => "never");
  refused.add("d");
  resolve("made");
  await until("it has ended", () => waiting.finishedAt !== undefined);
  expect(waiting).toMatchObject({ state: "Failed", message: "tenant d is being renamed to z" });
});

it("does two at once, and says why one failed", async () => {
  const all = jobs();
  const { promise, resolve } = Promise.withResolvers<string>();
  const waiting = ["a", "b"].map((tenant) => all.add("Backup", tenant, () => promise));
  const third = all.add("Backup", "c", async () => {
    throw new UserError("Unavailable", "the disk is full");
  });
  expect([...waiting, third].map(({ state }) => state)).toEqual(["Running", "Running", "Waiting"]);
  resolve("made");
  await until("the third has ended", () => third.finishedAt !== undefined);
  expect(third).toMatchObject({ state: "Failed", message: "the disk is full" });
});

it("ends what is under way when it is closed", async () => {
  const all = jobs();
  const job = all.add(
    "Verify",
    "a",
    ({ signal }) => new Promise((_done, fail) => signal.addEventListener("abort", fail)),
  );
  await all.close();
  expect(job.state).toBe("Failed");
});

it("ends what takes longer than anything does, says so, and has a place again", async () => {
  const waits: { ms: number; run: () => void }[] = [];
  const system = { wall: () => Date.now(), monotonic: () => performance.now() };
  const clock = new SteadyClock({ ...system, after: (ms, run) => (waits.push({ ms, run }), () => {}) });
  const all = new Jobs(clock, () => {});
  const stops: boolean[] = [];
  const endless = ({ signal, isStopping }: JobContext) =>
    new Promise<string>((_done, fail) =>
      signal.addEventListener("abort", () => {
        stops.push(isStopping());
        fail(new Error("the connection was ended"));
      }),
    );
  const [backup, verification] = [all.add("Backup", "a", endless), all.add("Verify", "b", endless)];
  const third = all.add("Backup", "c", async () => "made");
  expect(waits.map(({ ms }) => ms / 3_600_000)).toEqual([12, 6]);
  expect(third.state).toBe("Waiting");
  for (const { run } of waits.splice(0)) run();
  await until("the third has ended", () => third.finishedAt !== undefined);
  expect(backup).toMatchObject({ state: "Failed", message: "it took more than 12 hours, and was ended" });
  expect(verification).toMatchObject({ state: "Failed", message: "it took more than 6 hours, and was ended" });
  expect(third.state).toBe("Succeeded");
  expect(stops).toEqual([false, false]);
});

const config = BackupsConfigSchema.parse({
  target: { directory: "/srv/backups" },
  recipient: `age1${"q".repeat(58)}`,
  schedule: "0 3 * * *",
  tenants: { never: { schedule: null }, often: { schedule: "0 * * * *" } },
});
const at = (text: string) => Date.parse(`2026-01-10T${text}:00Z`);
const tenant = (name: string): Tenant => ({
  kind: "Tenant",
  metadata: { name, creationTimestamp: "2026-01-10T01:30:00Z", resourceVersion: "1", generation: 1 },
  spec: { serverName: "x", release: "1.163.2", config: "", reclaimPolicy: "Retain" },
  status: newTenantStatus(),
});

it("is due at the first time of the schedule after the last backup, and makes up once for what was missed", () => {
  const schedule = new BackupSchedule();
  const isDue = (name: string, time: string) => schedule.isDue(tenant(name), config, at(time));
  expect(isDue("a", "02:59")).toBe(false);
  expect(isDue("a", "03:00")).toBe(true);
  expect(isDue("a", "09:00")).toBe(true);
  schedule.learn("a", at("09:00"));
  expect(isDue("a", "23:00")).toBe(false);
  expect(isDue("often", "02:00")).toBe(true);
  expect(isDue("never", "23:00")).toBe(false);
});

it("waits after a failure, tells it, and forgets it with the next backup", () => {
  const schedule = new BackupSchedule();
  schedule.failed("a", "the disk is full", at("03:00"));
  expect(schedule.isDue(tenant("a"), config, at("03:02"))).toBe(false);
  expect(schedule.isDue(tenant("a"), config, at("06:00"))).toBe(true);
  // It is known by its data, and told by its name; of a tenant that is gone there is nothing to tell.
  expect(schedule.problems((storage) => `${storage}-renamed`)).toEqual([
    "the last backup of tenant a-renamed failed: the disk is full",
  ]);
  expect(schedule.problems(() => undefined)).toEqual([]);
  schedule.learn("a", at("06:00"));
  expect(schedule.problems((storage) => storage)).toEqual([]);
});
