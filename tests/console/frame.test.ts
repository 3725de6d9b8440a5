import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { API_TOKEN, startApiUnderTest, type ApiUnderTest } from "../api/api-under-test.ts";
import { someSamples } from "./support/samples.ts";
import { browserProgram, expectAccessible, openView, signIn, useBrowser, type View } from "./support/browser.ts";

const PATHS = [
  "overview",
  "tenants",
  "tenants/clinic-a",
  "tenants/clinic-a?tab=timeline",
  "tenants/clinic-a?tab=configuration",
  "tenants/clinic-a?tab=users",
  "tenants/clinic-a?tab=check",
  "tenants/clinic-a?tab=log",
  "shards",
  "shards/1.163.2-0",
  "rollouts",
  "events",
  "audit",
  "settings",
  "runbooks/SynapseShardsTenantFailed",
];

// The console in a real browser, on the real API over a service of nothing but objects; where there is no browser, these are skipped.
describe.skipIf(browserProgram() === undefined)("the console", () => {
  const browser = useBrowser();
  let api: ApiUnderTest;
  let view: View;
  beforeEach(async () => {
    api = await startApiUnderTest();
    view = await openView(browser(), api.url);
  });
  afterEach(async () => {
    await view.close();
    await api.close();
  });

  test("nobody sees anything before signing in, and a wrong token is told so", async () => {
    const { page } = view;
    await page.goto("/events");
    await page.getByLabel("Token").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").getByText("The token is wrong, has expired, or has been revoked.").waitFor();
    expect(await page.getByRole("navigation").count()).toBe(0);
    await page.getByLabel("Token").fill(API_TOKEN);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Events" }).waitFor();
    expect(await page.evaluate("document.cookie + JSON.stringify(localStorage)")).not.toContain(API_TOKEN);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Token").waitFor();
  });

  test("what is wrong comes first, each with what to do and its runbook, without internet", async () => {
    const { service } = api;
    service.fail(service.addTenant("clinic-b"), "InvalidConfig", "homeserver.yaml: listeners: not allowed");
    service.addShard("1.163.2-0", { phase: "Lost", reason: "NoAnswer", message: "it has not answered for 15 s" });
    const { page } = view;
    const asked: string[] = [];
    page.on("request", (request) => asked.push(new URL(request.url()).origin));
    await signIn(view, API_TOKEN);
    const problems = page.getByRole("region", { name: "2 problems" });
    await problems.getByText("takes the change back").waitFor();
    await page.getByRole("link", { name: "Overview 2 problems" }).waitFor();
    await problems
      .getByRole("listitem")
      .filter({ hasText: "1.163.2-0" })
      .getByRole("link", { name: "Runbook" })
      .click();
    await page.getByRole("heading", { name: "SynapseShardsShardDown" }).waitFor();
    await page.getByRole("heading", { name: "Mitigation" }).waitFor();
    expect(new Set(asked)).toEqual(new Set([api.url]));
  });

  test("a reload and a restart of the controller leave a person where they were, signed in", async () => {
    const { page } = view;
    await signIn(view, API_TOKEN, "/settings");
    await page.getByText("maxTenantsPerShard").waitFor();
    const port = Number(new URL(api.url).port);
    await api.close();
    await page.getByText("No answer from the controller").waitFor();
    api = await startApiUnderTest(undefined, { port });
    await page.getByText("Live", { exact: true }).waitFor();
    await page.reload();
    await page.getByText("maxTenantsPerShard").waitFor();
    expect(await page.locator("input[name=token]").count()).toBe(0);
  });

  test("a token that is revoked leads back to the way in", async () => {
    const { page } = view;
    await signIn(view, api.namedTokens.create("vera", "viewer"));
    api.namedTokens.revoke("vera");
    await page.getByLabel("Token").waitFor();
    expect(await page.getByRole("navigation").count()).toBe(0);
  });

  test.each(["light", "dark"] as const)("every screen is accessible in %s, also on a phone", async (theme) => {
    const { service } = api;
    service.addShard("1.163.2-0");
    service.run(service.addTenant("clinic-a"), "1.163.2-0");
    service.fail(service.addTenant("clinic-b"), "InvalidConfig", "homeserver.yaml: listeners: not allowed");
    const account = { admin: true, deactivated: false, locked: true, appservice: false };
    service.accounts.push({ userId: "@ada:clinic-a.localhost", displayName: "Ada", ...account });
    service.samples.push(...someSamples());
    await view.close();
    view = await openView(browser(), api.url, { theme });
    const { page } = view;
    await page.goto("/");
    await page.getByLabel("Token").waitFor();
    await expectAccessible(page);
    await signIn(view, API_TOKEN);
    for (const path of PATHS) {
      await page.setViewportSize({ width: 1280, height: 800 });
      await page.goto(`/${path}`);
      await page.getByRole("heading", { level: 1 }).waitFor();
      await expect.poll(() => page.getByText(/^Loading/).count()).toBe(0);
      await expectAccessible(page);
      await page.setViewportSize({ width: 390, height: 800 });
      // Nothing is wider than the window but what scrolls in a box of its own.
      expect([path, await page.evaluate("document.documentElement.scrollWidth")]).toEqual([path, 390]);
      if (theme === "light") await expectAccessible(page);
    }
  });
});
