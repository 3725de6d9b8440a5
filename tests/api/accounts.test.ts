import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Secret, TOTP } from "otpauth";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Attempts } from "../../src/api/access/accounts/attempts.ts";
import { type ApiUnderTest, startApiUnderTest } from "./api-under-test.ts";

const PASSWORD = "correct horse battery";
const STEP_MS = 30_000;

let api: ApiUnderTest;
let url: string;
let clock: number;
beforeEach(async () => {
  clock = Date.parse("2026-11-27T12:00:00Z");
  api = await startApiUnderTest(undefined, { now: () => new Date(clock) });
  url = api.url.replace("127.0.0.1", "localhost");
});
afterEach(() => api.close());

async function post(path: string, body: object, headers: Record<string, string> = {}) {
  const answer = await fetch(`${url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", "sec-fetch-site": "same-origin", origin: url, ...headers },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  const cookie = answer.headers.getSetCookie()[0]?.split(";", 1)[0] ?? "";
  return { status: answer.status, text, cookie, json: JSON.parse(text) as Record<string, unknown> };
}

async function asOwner(method: string, path: string, body?: object) {
  const init = body === undefined ? {} : { body: JSON.stringify(body) };
  const answer = await api.request(path, { method, ...init });
  return { status: answer.status, text: await answer.text() };
}

async function linkOf(name: string, grant: object = { role: "operator" }): Promise<string> {
  const { text } = await asOwner("POST", "/v1/accounts", { name, ...grant });
  const link = new URL((JSON.parse(text) as { url: string }).url);
  expect([link.origin, link.pathname]).toEqual([url, "/enrol"]);
  return link.hash.slice(1);
}

const codeOf = (secret: string) => new TOTP({ secret: Secret.fromBase32(secret) }).generate({ timestamp: clock });

async function begun(secret: string) {
  const { json } = await post("/v1/enrolment", { secret });
  return json as { flow: string; totp: { secret: string } };
}

/** @returns the key of the codes */
async function enrolled(name: string, grant?: object): Promise<string> {
  const secret = await linkOf(name, grant);
  const { flow, totp } = await begun(secret);
  const code = codeOf(totp.secret);
  expect((await post("/v1/enrolment/password", { secret, flow, password: PASSWORD, code })).status).toBe(201);
  return totp.secret;
}

const enter = (name: string, key: string, password = PASSWORD) =>
  post("/v1/session/password", { name, password, code: codeOf(key) });
const whoAmI = async (cookie: string) => {
  const answer = await fetch(`${url}/v1/whoami`, { headers: { cookie, "sec-fetch-site": "same-origin", origin: url } });
  return answer.status === 200 ? answer.json() : answer.status;
};

describe("an account with a password and codes", () => {
  test("is made by its person with a link that is good once, and signs in", async () => {
    const secret = await linkOf("ada", { role: "tenant-admin", tenants: "customer=acme" });
    const { flow, totp } = await begun(secret);
    const given = { secret, flow, password: PASSWORD };
    expect((await post("/v1/enrolment/password", { ...given, code: "000000" })).status).toBe(422);
    expect((await post("/v1/enrolment/password", { ...given, password: "short", code: "123456" })).status).toBe(422);
    const { status, cookie } = await post("/v1/enrolment/password", { ...given, code: codeOf(totp.secret) });
    expect(status).toBe(201);
    const who = { name: "account:ada", role: "tenant-admin", tenants: "customer=acme" };
    expect(await whoAmI(cookie)).toEqual(who);
    expect((await post("/v1/enrolment", { secret })).status).toBe(401);
    clock += STEP_MS;
    expect(await whoAmI((await enter("ada", totp.secret)).cookie)).toEqual(who);
    expect(api.audited.filter(({ actor }) => actor === "account:ada").map(({ action }) => action)).toEqual([
      "enrolPassword",
      "signInWithPassword",
    ]);
  });

  test("takes a code once, and none that is older than one that was taken", async () => {
    const key = await enrolled("ada");
    expect((await enter("ada", key)).status).toBe(401);
    clock += STEP_MS;
    expect((await enter("ada", key)).status).toBe(201);
    expect((await enter("ada", key)).status).toBe(401);
  });

  test("tells nobody which of the name, the password and the code is wrong", async () => {
    const key = await enrolled("ada");
    clock += STEP_MS;
    const answers = [
      await enter("nobody", key),
      await enter("ada", key, "another password"),
      await post("/v1/session/password", { name: "ada", password: PASSWORD, code: "000000" }),
    ];
    for (const { status, text, cookie } of answers) expect([status, text, cookie]).toEqual([401, answers[0]?.text, ""]);
    expect((await enter("ada", key)).status).toBe(201);
  });

  test("its session ends with a reset and with its removal, also where the name is given again", async () => {
    const key = await enrolled("ada");
    clock += STEP_MS;
    const { cookie } = await enter("ada", key);
    expect((await asOwner("POST", "/v1/accounts/ada/reset")).status).toBe(200);
    expect(await whoAmI(cookie)).toBe(401);
    clock += STEP_MS;
    expect((await enter("ada", key)).status).toBe(401);
    expect((await asOwner("DELETE", "/v1/accounts/ada")).status).toBe(204);
    await linkOf("ada", { role: "admin" });
    expect(await whoAmI(cookie)).toBe(401);
    expect((await asOwner("DELETE", "/v1/accounts/nobody")).status).toBe(404);
  });

  test("is kept without the password, the link or a readable key", async () => {
    const secret = await linkOf("bob");
    const key = await enrolled("ada");
    const text =
      readFileSync(join(api.directory, "accounts.json"), "utf8") + api.logged() + JSON.stringify(api.audited);
    for (const word of [PASSWORD, secret, key]) expect(text).not.toContain(word);
    const { text: listed } = await asOwner("GET", "/v1/accounts");
    expect(JSON.parse(listed)).toMatchObject({ items: [{ name: "ada", signsInWith: "password" }, { name: "bob" }] });
    for (const word of ["hash", "scrypt", "handle"]) expect(listed).not.toContain(word);
  });
});

test("a link is good for a day, and a wrong one is told apart from nothing", async () => {
  const secret = await linkOf("ada");
  clock += 24 * 3_600_000;
  expect((await post("/v1/enrolment", { secret })).text).toBe((await post("/v1/enrolment", { secret: "wrong" })).text);
});

test("no other page signs anybody in or enrols anybody", async () => {
  const secret = await linkOf("ada");
  const foreign = { "sec-fetch-site": "cross-site", origin: "https://evil.example" };
  const bodies: [string, object][] = [
    ["/v1/enrolment", { secret }],
    ["/v1/enrolment/password", { secret, flow: "x", password: PASSWORD, code: "123456" }],
    ["/v1/session/password", { name: "ada", password: PASSWORD, code: "123456" }],
    ["/v1/session/passkey/options", {}],
  ];
  for (const [path, body] of bodies) expect([path, (await post(path, body, foreign)).status]).toEqual([path, 403]);
  expect((await post("/v1/enrolment", { secret })).status).toBe(200);
});

test("who guesses for one account waits longer and longer, and others do not", () => {
  const attempts = new Attempts(() => clock);
  for (let count = 0; count < 5; count += 1) attempts.begin("ada");
  expect(() => attempts.begin("ada")).toThrow("wait 1 seconds");
  attempts.begin("bob");
  let waited = 0;
  for (let count = 0; count < 20; count += 1)
    for (;;)
      try {
        attempts.begin("ada");
        break;
      } catch {
        clock += 1000;
        waited += 1;
      }
  expect(waited).toBeGreaterThan(3600);
  attempts.succeeded("ada");
  attempts.begin("ada");
});
