import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { OidcSignIn } from "../../src/api/access/oidc.ts";
import { OidcSchema } from "../../src/model/sign-in.ts";
import { API_TOKEN, startApiUnderTest, type ApiUnderTest } from "../api/api-under-test.ts";
import { CLIENT_ID, CLIENT_SECRET, type IdentityProvider, startIdentityProvider } from "../api/identity-provider.ts";
import { browserProgram, expectAccessible, openView, signIn, useBrowser, type View } from "./support/browser.ts";

describe.skipIf(browserProgram() === undefined)("who may do what, in the console", () => {
  const browser = useBrowser();
  let provider: IdentityProvider;
  let api: ApiUnderTest;
  let url: string;
  let view: View;
  beforeEach(async () => {
    provider = await startIdentityProvider({ ada: ["admins"], eve: [] });
    const config = OidcSchema.parse({
      issuer: provider.issuer,
      clientId: CLIENT_ID,
      label: "Sign in with Example",
      scopes: ["openid", "profile"],
      roles: [{ group: "admins", role: "admin" }],
    });
    const log = { warn: () => {} };
    api = await startApiUnderTest(undefined, {
      signIn: (sessions) => ({
        oidc: new OidcSignIn({ config, secret: CLIENT_SECRET, consoleUrl: () => url, sessions, log }),
      }),
    });
    url = api.url.replace("127.0.0.1", "localhost");
    provider.allow(url);
    for (const [name, customer] of [
      ["clinic-a", "acme"],
      ["school", "other"],
    ] as const) {
      const tenant = api.service.addTenant(name);
      tenant.spec.labels = { customer };
      api.service.addShard("1.163.2-0");
      api.service.run(tenant, "1.163.2-0");
    }
    view = await openView(browser(), url);
  });
  afterEach(async () => {
    await view.close();
    await api.close();
    await provider.close();
  });

  test("an admin makes a token for a tenant admin, who sees their tenants, tends them, and meets no more", async () => {
    const { page } = view;
    await signIn(view, API_TOKEN, "/settings");
    await page.getByRole("button", { name: "Make a token …" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("textbox", { name: "Name" }).fill("acme-it");
    await dialog.getByRole("combobox", { name: "Role" }).selectOption("tenant-admin");
    await dialog.getByRole("textbox", { name: "Tenants with the labels" }).fill("customer=acme");
    await dialog
      .getByText("synapse-shards token create acme-it --role tenant-admin --tenants customer=acme --expires 90d")
      .waitFor();
    await dialog.getByRole("button", { name: "Make", exact: true }).click();
    const shown = page.getByRole("dialog", { name: "The token of acme-it" });
    const token = await shown.getByRole("code").innerText();
    await expectAccessible(page);
    await shown.getByRole("button", { name: "Done" }).click();
    await page.getByRole("group", { name: "Tokens" }).getByText("customer=acme").waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();

    await signIn(view, token, "/tenants");
    await page.getByText("1 tenant", { exact: true }).waitFor();
    expect(await page.getByText("school").count()).toBe(0);
    expect(await page.getByRole("navigation", { name: "Screens" }).getByRole("link", { name: "Shards" }).count()).toBe(
      0,
    );
    await page.getByRole("link", { name: "clinic-a" }).click();
    await page.getByRole("button", { name: "Sleep …" }).waitFor();
    expect(await page.getByRole("button", { name: /^(Move|Suspend|Delete) …/ }).count()).toBe(0);
    await page.goto(`${url}/overview`);
    await page.getByRole("region", { name: "Moves" }).waitFor();
    await page.goto(`${url}/tenants/school`);
    await page.getByText("There is no tenant school").first().waitFor();
  });

  test("a person signs in at the identity provider, is where they wanted to be, and signs out of both", async () => {
    const { page } = view;
    await page.goto("/events");
    await page.getByRole("link", { name: "Sign in with Example" }).click();
    await page.locator("input[name=login]").fill("ada");
    await page.locator("input[name=password]").fill("any");
    await page.locator("button[type=submit]").click();
    await page.getByRole("button", { name: "Continue" }).click();
    await page.getByRole("heading", { name: "Events" }).waitFor();
    await page.getByText("oidc:ada").waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("button", { name: "Yes, sign me out" }).click();
    await page.getByRole("link", { name: "Sign in with Example" }).waitFor();
    expect(new URL(page.url()).origin).toBe(url);
    await expectAccessible(page);
  });

  test("a person enrols a passkey by the link of a new account, and signs in with it", async () => {
    const { page } = view;
    await signIn(view, API_TOKEN, "/settings");
    await page.getByRole("button", { name: "Make an account …" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("textbox", { name: "Name" }).fill("ada");
    await dialog.getByRole("combobox", { name: "Role" }).selectOption("operator");
    await dialog.getByRole("button", { name: "Make", exact: true }).click();
    const shown = page.getByRole("dialog", { name: "The link of ada" });
    const link = await shown.getByRole("code").innerText();
    await shown.getByRole("button", { name: "Done" }).click();
    await page.getByRole("button", { name: "Sign out" }).click();

    const debug = await page.context().newCDPSession(page);
    await debug.send("WebAuthn.enable");
    await debug.send("WebAuthn.addVirtualAuthenticator", {
      options: {
        protocol: "ctap2",
        transport: "internal",
        hasResidentKey: true,
        hasUserVerification: true,
        isUserVerified: true,
        automaticPresenceSimulation: true,
      },
    });
    await page.goto(link);
    await page.getByText("You are ada, with the role operator.").waitFor();
    await page.getByText("Use a password and an app for codes").click();
    await expectAccessible(page);
    await page.getByRole("button", { name: "Use a passkey" }).click();
    await page.getByText("account:ada").waitFor();
    expect(new URL(page.url()).hash).toBe("");
    await page.getByRole("button", { name: "Sign out" }).click();

    await page.getByText("Sign in with a password").click();
    await expectAccessible(page);
    const asked = page.waitForRequest((request) => request.url().endsWith("/v1/session/passkey"));
    await page.getByRole("button", { name: "Sign in with a passkey" }).click();
    await page.getByText("account:ada").waitFor();
    // What somebody overheard lets nobody in again.
    const body = (await asked).postData() ?? "";
    const headers = { "content-type": "application/json", origin: url, "sec-fetch-site": "same-origin" };
    const again = await fetch(`${url}/v1/session/passkey`, { method: "POST", headers, body });
    expect(again.status).toBe(401);
    expect(api.audited.filter(({ actor }) => actor === "account:ada").map(({ action }) => action)).toEqual([
      "enrolPasskey",
      "signOut",
      "signInWithPasskey",
    ]);
    expect(api.audited.at(-1)).toMatchObject({ action: "signInWithPasskey", actor: null, status: 401 });
    // The link is used up, also for who has a passkey.
    await page.goto("/overview");
    await page.goto(link);
    await page.getByRole("alert").getByText("The link has been used").waitFor();
  });

  test("a person without a role is told so", async () => {
    const { page } = view;
    await page.goto("/overview?sign-in=no-role");
    expect(await page.getByRole("alert").innerText()).toContain("none of your groups has a role here");
  });
});
