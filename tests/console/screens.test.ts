import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { API_TOKEN, startApiUnderTest, type ApiUnderTest } from "../api/api-under-test.ts";
import type { BackupService } from "../../src/controller/service/backup-service.ts";
import { backupOf, someSamples, usageOf } from "./support/samples.ts";
import { AdminAccessConfigSchema } from "../../src/model/admin-access.ts";
import { ADMIN_TOKEN } from "../api/memory-service.ts";
import { browserProgram, expectAccessible, openView, signIn, useBrowser, type View } from "./support/browser.ts";

const MANY = 100_000;
const BACKUP = "20261126T020000.000Z";
const restored: unknown[] = [];
const BACKUPS = {
  jobs: () => [],
  list: async (tenant: string) => [{ backup: backupOf(tenant, BACKUP) }],
  newest: async () => [],
  restore: async (tenant: string, request: object) => {
    restored.push({ tenant, ...request });
    return { id: "job-1", kind: "Restore", tenant, state: "Running", message: "", requestedAt: "2026-11-26T03:00:00Z" };
  },
} as unknown as BackupService;

describe.skipIf(browserProgram() === undefined)("the console's screens", () => {
  const browser = useBrowser();
  let api: ApiUnderTest;
  let view: View;
  beforeEach(async () => {
    restored.length = 0;
    api = await startApiUnderTest(undefined, { parts: { backups: BACKUPS } });
    const { service } = api;
    service.addShard("1.163.2-0");
    service.addShard("1.163.2-1");
    for (const name of ["clinic-a", "clinic-b", "school"]) service.run(service.addTenant(name), "1.163.2-0");
    view = await openView(browser(), api.url);
  });
  afterEach(async () => {
    await view.close();
    await api.close();
  });

  test("of 100,000 tenants those are shown that are looked at, found and sorted by the controller", async () => {
    const { service } = api;
    service.tenants.clear();
    for (let index = 0; index < MANY; index += 1)
      service.addTenant(`tenant-${String(index).padStart(6, "0")}`, { phase: index % 5 === 0 ? "Asleep" : "Running" });
    const all = [...service.tenants.values()];
    service.listTenants = async () => all;
    await signIn(view, API_TOKEN, "/tenants");
    const { page } = view;
    const table = page.getByRole("table", { name: "Tenants" });
    await table.getByRole("link", { name: "tenant-000000" }).waitFor();
    await page.getByText("100,000 tenants").waitFor();
    expect(await table.getByRole("row").count()).toBeLessThan(60);
    await page.evaluate("document.querySelector('[role=table]').scrollTo(0, 1e9)");
    await table.getByRole("link", { name: "tenant-099999" }).waitFor();
    // By keyboard, and the other way round again: the focus stays where it was, and one sees the list from its beginning.
    const byName = table.getByRole("button", { name: "Name", exact: true });
    await byName.focus();
    await page.keyboard.press("Enter");
    await expect.poll(() => table.getByRole("row").nth(1).innerText()).toContain("tenant-099999");
    await page.keyboard.press("Enter");
    await expect.poll(() => table.getByRole("row").nth(1).innerText()).toContain("tenant-000000");
    expect(await byName.evaluate((button) => button.matches(":focus"))).toBe(true);
    await page.getByRole("searchbox", { name: "Name or server name" }).fill("tenant-0427");
    await page.getByText("100 tenants").waitFor();
    await page.getByLabel("Phase").selectOption("Asleep");
    await page.getByText("20 tenants").waitFor();
    // The address keeps what was looked for.
    await page.reload();
    await page.getByText("20 tenants").waitFor();
    await table.getByRole("link", { name: "tenant-042700" }).waitFor();
  });

  test("a view of the tenants is kept under a name, also for the next time, and removed", async () => {
    const { page } = view;
    await signIn(view, API_TOKEN, "/tenants");
    await page.getByText("3 tenants").waitFor();
    await page.getByRole("searchbox", { name: "Name or server name" }).fill("clinic");
    await page.getByText("2 tenants").waitFor();
    await page.getByLabel("Name of this view").fill("Clinics");
    await page.getByRole("button", { name: "Save this view" }).click();
    await page.goto("/tenants");
    await page.getByText("3 tenants").waitFor();
    await page.getByRole("button", { name: "Clinics", exact: true }).click();
    await page.getByText("2 tenants").waitFor();
    expect(await page.getByRole("searchbox", { name: "Name or server name" }).inputValue()).toBe("clinic");
    expect(new URL(page.url()).searchParams.get("search")).toBe("clinic");
    await page.getByRole("button", { name: "Remove the view Clinics" }).click();
    await page.reload();
    await page.getByText("2 tenants").waitFor();
    expect(await page.getByRole("button", { name: "Clinics", exact: true }).count()).toBe(0);
  });

  test("a tenant is moved where a person wants it, and the page shows the command, and that it moved", async () => {
    const { page } = view;
    await signIn(view, API_TOKEN, "/tenants/clinic-a");
    await page.getByRole("button", { name: "Move …" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("combobox").first().selectOption("1.163.2-1");
    await dialog.getByRole("combobox").last().selectOption("for a day");
    await dialog.getByText("synapse-shards tenant move clinic-a --to 1.163.2-1 --pin 1d").waitFor();
    await dialog.getByRole("button", { name: "Move", exact: true }).click();
    await dialog.waitFor({ state: "detached" });
    const last = page.getByRole("region", { name: "Last move" });
    await last.getByText("1.163.2-0 → 1.163.2-1").waitFor();
    expect(api.service.tenants.get("clinic-a")?.status.shard).toBe("1.163.2-1");
  });

  test("a refusal is told in the dialog, which stays", async () => {
    const { page } = view;
    api.service.keepsAwake = ["its federation queue is not empty"];
    await signIn(view, API_TOKEN, "/tenants/clinic-a");
    await page.getByRole("button", { name: "Sleep …" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("button", { name: "Sleep", exact: true }).click();
    await dialog.getByRole("alert").waitFor();
    expect(await dialog.getByRole("alert").innerText()).toContain("federation queue");
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
  });

  test("deleting asks for the name", async () => {
    const { page } = view;
    await signIn(view, API_TOKEN, "/tenants/clinic-b");
    await page.getByRole("button", { name: "Delete …" }).click();
    const dialog = page.getByRole("dialog");
    const confirm = dialog.getByRole("button", { name: "Delete", exact: true });
    await dialog.getByLabel("Type clinic-b to confirm").fill("clinic");
    expect(await confirm.isDisabled()).toBe(true);
    await dialog.getByLabel("Type clinic-b to confirm").fill("clinic-b");
    await confirm.click();
    await page.getByRole("heading", { name: "Tenants" }).waitFor();
    expect(api.service.tenants.has("clinic-b")).toBe(false);
    await page.getByText("2 tenants").waitFor();
  });

  test("a configuration is seen as a diff before it is asked for; what others change does not take it away", async () => {
    const { page } = view;
    const { service } = api;
    service.addTenant("annex", { phase: "Running", shard: "1.163.2-0" }, "enable_registration: false\n");
    await signIn(view, API_TOKEN, "/tenants/annex?tab=configuration");
    const editor = page.getByLabel("Configuration", { exact: true });
    await editor.fill("enable_registration: false\nenable_metrics: true\n");
    const difference = page.getByLabel("Difference");
    await difference.getByText("+ enable_metrics: true").waitFor();
    service.addEvent({ type: "Normal", reason: "Moved", object: "Tenant/annex", message: "moved" });
    await page.getByText("Its shard would accept this.").waitFor();
    const ask = page.getByRole("button", { name: "Ask for this" });
    await editor.fill("listeners: []\n");
    await page.getByText("listeners is not a tenant's to set").waitFor();
    expect(await ask.isDisabled()).toBe(true);
    service.configWarnings = ["enable_metrics: has no effect here"];
    await editor.fill("enable_registration: false\nenable_metrics: true\n");
    await page.getByText("enable_metrics: has no effect here").waitFor();
    await ask.click();
    await difference.waitFor({ state: "detached" });
    expect(service.tenants.get("annex")?.spec.config).toContain("enable_metrics: true");
  });

  test("several tenants are chosen, looked through, and suspended together", async () => {
    const { page } = view;
    await signIn(view, API_TOKEN, "/tenants");
    for (const name of ["clinic-a", "school"]) await page.getByLabel(`Choose ${name}`).check();
    await page.getByText("2 tenants chosen").waitFor();
    await page.getByRole("button", { name: "Suspend …" }).click();
    const dialog = page.getByRole("dialog");
    expect(await dialog.getByRole("listitem").allInnerTexts()).toEqual(["clinic-a", "school"]);
    await dialog.getByRole("button", { name: "Suspend", exact: true }).click();
    await dialog.waitFor({ state: "detached" });
    const suspended = [...api.service.tenants.values()].filter(({ spec }) => spec.suspended);
    expect(suspended.map(({ metadata }) => metadata.name)).toEqual(["clinic-a", "school"]);
  });

  test("plots show what was, with their numbers, over the time that a person chooses", async () => {
    const { page } = view;
    const { service } = api;
    service.samples.push(...someSamples());
    await signIn(view, API_TOKEN, "/overview");
    const over = page.getByRole("region", { name: "Over time" });
    const tenants = over.getByRole("figure", { name: /^Tenants / });
    await tenants.locator("canvas").waitFor();
    await over.getByLabel("Period").selectOption("hour");
    await over.getByText("synapse-shards history --range hour").waitFor();
    await expect
      .poll(() => tenants.getByRole("listitem").allInnerTexts())
      .toContainEqual(expect.stringMatching(/^running\s+12$/));
    // Read out to those who do not see it.
    await expect.poll(() => tenants.locator("figcaption").innerText()).toContain("running: between 3 and 12, last 12");
    await tenants.getByText("Numbers").click();
    await expect.poll(() => tenants.getByRole("row").count()).toBe(11);
    await page.goto("/shards/1.163.2-0");
    await page
      .getByRole("figure", { name: /^Load / })
      .locator("canvas")
      .waitFor();
    service.usage.push(...["2026-10", "2026-11"].map((month, index) => usageOf("clinic-a", month, 100 + index)));
    await page.goto("/tenants/clinic-a");
    const requests = page.getByRole("figure", { name: /^Requests / });
    await requests.locator("canvas").waitFor();
    expect(await requests.locator("figcaption").innerText()).toContain("requests: between 100 and 101, last 101");
  });

  test("plots say where they come from, where a Prometheus is configured", async () => {
    const { page } = view;
    const { service } = api;
    service.samples.push(...someSamples());
    const own = service.history.bind(service);
    service.history = async (...asked) => ({ ...(await own(...asked)), source: "prometheus" });
    await signIn(view, API_TOKEN, "/overview");
    const over = page.getByRole("region", { name: "Over time" });
    await over.getByText("From Prometheus.").waitFor();
    service.history = async (...asked) => ({ ...(await own(...asked)), problem: "Prometheus does not answer" });
    await over.getByLabel("Period").selectOption("hour");
    await over.getByText("Prometheus does not answer.").waitFor();
    await expect.poll(() => over.locator("canvas").count()).toBeGreaterThan(3);
  });

  test("a tenant is opened to its administrators and closed, where the cluster has an entrance for them", async () => {
    const { page } = view;
    const { service } = api;
    await signIn(view, API_TOKEN, "/tenants/clinic-a");
    await page.getByRole("region", { name: "Sleep" }).waitFor();
    const card = page.getByRole("region", { name: "Its administrators" });
    expect(await card.count()).toBe(0);
    const ui = "https://admin.example/";
    service.adminEntrance = { ...AdminAccessConfigSchema.parse({ ui })!, listensAt: 8449 };
    await page.reload();
    await card.getByRole("button", { name: "Open …" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("From these addresses and networks").fill("10.0.0.0/8, nonsense");
    await dialog.getByRole("button", { name: "Open", exact: true }).click();
    await dialog.getByText("an IP address or a network such as 10.0.0.0/8").waitFor();
    await dialog.getByLabel("From these addresses and networks").fill("10.0.0.0/8, 192.0.2.7");
    await dialog.getByText("tenant admin-access open clinic-a --network 10.0.0.0/8 192.0.2.7").waitFor();
    await expectAccessible(page);
    await dialog.getByRole("button", { name: "Open", exact: true }).click();
    await dialog.waitFor({ state: "detached" });
    await card.getByText("10.0.0.0/8, 192.0.2.7").waitFor();
    const link = card.getByRole("link", { name: "admin.example" });
    expect(await link.getAttribute("href")).toContain("?server=https%3A%2F%2Fclinic-a.localhost%3A8449");

    const account = { deactivated: false, locked: false, appservice: false };
    service.accounts.push(
      { userId: "@ada:clinic-a.localhost", admin: true, ...account },
      { userId: "@bob:clinic-a.localhost", admin: false, ...account },
    );
    await page.getByRole("link", { name: "Users", exact: true }).click();
    await page.getByRole("button", { name: "Sign in as …" }).click();
    expect(await page.getByRole("button", { name: "Sign in as …" }).count()).toBe(1);
    await dialog.getByRole("button", { name: "Sign in", exact: true }).click();
    await dialog.getByText(ADMIN_TOKEN).waitFor();
    await expectAccessible(page);
    await dialog.getByRole("button", { name: "Done" }).click();
    await dialog.waitFor({ state: "detached" });
    expect(await page.content()).not.toContain(ADMIN_TOKEN);

    await page.getByRole("link", { name: "State", exact: true }).click();
    await card.getByRole("button", { name: "Close …" }).click();
    await dialog.getByRole("button", { name: "Close", exact: true }).click();
    await card.getByText("closed").waitFor();
    expect(service.tenants.get("clinic-a")!.spec.adminAccess).toBeUndefined();
  });

  test("users are found, and get another password, the rights of an admin, or none at all any more", async () => {
    const { page } = view;
    const { service } = api;
    const account = { admin: false, deactivated: false, locked: false, appservice: false };
    for (const user of ["ada", "bob"]) service.accounts.push({ userId: `@${user}:clinic-a.localhost`, ...account });
    await signIn(view, API_TOKEN, "/tenants/clinic-a?tab=users");
    await page.getByRole("cell", { name: "@ada:clinic-a.localhost", exact: true }).waitFor();
    await page.getByLabel("User id or display name").fill("bob");
    await page.getByRole("cell", { name: "@ada:clinic-a.localhost", exact: true }).waitFor({ state: "detached" });
    const row = page.getByRole("row").filter({ hasText: "@bob:clinic-a.localhost" });
    await row.getByText("Make admin …").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("synapse-shards tenant users make-admin clinic-a @bob:clinic-a.localhost").waitFor();
    await dialog.getByRole("button", { name: "Make admin", exact: true }).click();
    await row.getByText("Admin", { exact: true }).waitFor();
    await row.getByText("Reset password …").click();
    const password = await dialog.locator("code").first().innerText();
    await dialog.getByRole("button", { name: "Reset", exact: true }).click();
    await dialog.waitFor({ state: "detached" });
    expect(service.userChanges.at(-1)?.change).toEqual({ kind: "password", password, logoutDevices: true });
    await row.getByText("Deactivate …").click();
    await dialog.getByLabel(/^Type @bob/).fill("@bob:clinic-a.localhost");
    await dialog.getByRole("button", { name: "Deactivate", exact: true }).click();
    await row.getByText("Deactivated", { exact: true }).waitFor();
    expect(await row.getByRole("button").count()).toBe(0);
  });

  test("a release is rolled out, in waves that are seen, paused, and goes on", async () => {
    const { page } = view;
    const { store } = api;
    await signIn(view, API_TOKEN, "/rollouts");
    await page.getByText("There is no fleet yet").waitFor();
    await page.getByRole("button", { name: "Roll out …" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Release of Synapse").fill("1.164.0");
    await dialog.getByLabel("Canaries, by name").fill("clinic-a, school");
    await dialog
      .getByText("synapse-shards fleet set --release 1.164.0 --wave-size 10 --canary clinic-a --canary school")
      .waitFor();
    await dialog.getByRole("button", { name: "Roll out", exact: true }).click();
    await page.getByRole("heading", { name: "Synapse 1.164.0" }).waitFor();
    const fleet = (await store.get("Fleet", "fleet"))!;
    expect(fleet.spec).toMatchObject({ release: "1.164.0", rollout: { canaries: { names: ["clinic-a", "school"] } } });
    const progress = { wave: 1, waves: 3, updated: 12, total: 30, failed: ["clinic-b"], phase: "Progressing" as const };
    await store.update({ ...fleet, status: { ...fleet.status, release: "1.164.0", ...progress } });
    await page.reload();
    await page.getByText("12 of 30 tenants").waitFor();
    expect(await page.getByRole("list", { name: "Waves" }).getByRole("listitem").allInnerTexts()).toEqual([
      expect.stringContaining("Canaries") as string,
      expect.stringContaining("Wave 1") as string,
      expect.stringContaining("Wave 2") as string,
    ]);
    await page.getByRole("region", { name: "1 failed tenant" }).getByRole("link", { name: "clinic-b" }).waitFor();
    for (const [verb, paused] of [
      ["Pause", true],
      ["Go on", false],
    ] as const) {
      await page.getByRole("button", { name: `${verb} …` }).click();
      await dialog.getByRole("button", { name: verb, exact: true }).click();
      await dialog.waitFor({ state: "detached" });
      expect((await store.get("Fleet", "fleet"))?.spec.rollout.paused).toBe(paused);
    }
  });

  test("a tenant is looked at as the world sees it, kept awake, brought to a release, and restored by its name", async () => {
    const { page } = view;
    const { service } = api;
    service.findings.push([
      {
        code: "dns-missing",
        severity: "error",
        subject: "clinic-a.example",
        message: "it has no address",
        remedy: "add one",
      },
    ]);
    await signIn(view, API_TOKEN, "/tenants/clinic-a?tab=check");
    await page.getByRole("button", { name: "Look now" }).click();
    await page.getByRole("region", { name: "What was found" }).getByText("Add one.").waitFor();
    const dialog = page.getByRole("dialog");
    await page.getByRole("button", { name: "Keep awake …" }).click();
    await dialog.getByRole("button", { name: "Keep awake", exact: true }).click();
    await page.getByRole("button", { name: "Let sleep …" }).waitFor();
    expect(service.tenants.get("clinic-a")?.spec.hibernation).toEqual({ mode: "Never" });
    await page.getByRole("button", { name: "Release …" }).click();
    await dialog.getByLabel("Release of Synapse").fill("1.164.0");
    await dialog.getByText("synapse-shards tenant update clinic-a --release 1.164.0").waitFor();
    await dialog.getByRole("button", { name: "Ask for it" }).click();
    await dialog.waitFor({ state: "detached" });
    expect(service.tenants.get("clinic-a")?.spec.release).toBe("1.164.0");
    await page.getByRole("link", { name: "Backups" }).click();
    await page.getByRole("button", { name: /^Restore …/ }).click();
    await dialog.getByLabel("Type clinic-a to confirm").fill("clinic-a");
    await dialog.getByText(`synapse-shards tenant restore clinic-a --backup ${BACKUP}`).waitFor();
    await dialog.getByRole("button", { name: "Restore", exact: true }).click();
    await dialog.waitFor({ state: "detached" });
    expect(restored).toEqual([{ tenant: "clinic-a", backup: BACKUP }]);
  });

  test("shards are boxes with their tenants, and are drained", async () => {
    const { page } = view;
    await signIn(view, API_TOKEN, "/shards");
    const box = page.getByRole("region", { name: "Shard 1.163.2-0" });
    await box.getByRole("link", { name: "clinic-b" }).waitFor();
    await box.getByRole("link", { name: "1.163.2-0" }).click();
    await page.getByRole("button", { name: "Drain …" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Drain", exact: true }).click();
    await expect.poll(() => api.service.shards.get("1.163.2-0")?.spec.drain).toBe("Requested");
  });

  test("what happens is seen without asking", async () => {
    const { page } = view;
    await signIn(view, API_TOKEN, "/events");
    await page.getByText("Live", { exact: true }).waitFor();
    const message = "clinic-a was moved while somebody looked";
    api.service.addEvent({ type: "Normal", reason: "Moved", object: "Tenant/clinic-a", message });
    await page.getByText(message).waitFor();
    expect(await page.getByRole("row").filter({ hasText: message }).innerText()).toContain("Moved");
  });

  test("an operator tends tenants and shards, deletes none, and neither reads the audit log nor makes tokens", async () => {
    const { page } = view;
    await signIn(view, api.namedTokens.create("olga", "operator"), "/tenants/clinic-a");
    const button = (name: string) => page.getByRole("button", { name, exact: true });
    await button("Suspend …").waitFor();
    expect(await button("Move …").count()).toBe(1);
    expect(await button("Delete …").count()).toBe(0);
    await page.goto("/shards/1.163.2-0");
    await button("Drain …").waitFor();
    await page.goto("/audit");
    await page.getByText("The audit log is for admins").waitFor();
    await page.goto("/settings");
    await page.getByRole("heading", { name: "Settings" }).waitFor();
    expect(await button("Make a token …").count()).toBe(0);
    // The page is not what keeps an operator from it.
    const status = await page.evaluate(
      "fetch('/v1/tenants/clinic-a', { method: 'DELETE', headers: { 'content-type': 'application/json' }, body: '{}' }).then(({ status }) => status)",
    );
    expect(status).toBe(403);
    expect(api.service.tenants.has("clinic-a")).toBe(true);
  });

  test("a viewer sees tenants and shards, and neither actions, configurations, logs nor the audit log", async () => {
    const { page } = view;
    await signIn(view, api.namedTokens.create("vera", "viewer"), "/tenants/clinic-a");
    await page.getByText("Your role sees tenants, and changes nothing.").waitFor();
    expect(await page.getByRole("button", { name: /…$/ }).count()).toBe(0);
    for (const [path, words] of [
      ["/tenants/clinic-a?tab=configuration", "Configurations are for operators"],
      ["/tenants/clinic-a?tab=users", "Users are for operators"],
      ["/tenants/clinic-a?tab=log", "Logs are for operators"],
      ["/audit", "The audit log is for admins"],
    ] as const) {
      await page.goto(path);
      await page.getByText(words).waitFor();
    }
    await page.goto("/tenants");
    await page.getByRole("link", { name: "clinic-a" }).waitFor();
    expect(await page.getByRole("checkbox").count()).toBe(0);
  });
});
