import { afterEach, expect, test } from "vitest";
import { startApiUnderTest, type ApiUnderTest } from "./api-under-test.ts";

let api: ApiUnderTest;
afterEach(() => api.close());

const start = async (trustProxy: readonly string[]) => {
  api = await startApiUnderTest(undefined, { parts: { trustProxy } });
};
const signIn = (from: string) =>
  fetch(`${api.url}/v1/session`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      origin: api.url,
      "sec-fetch-site": "same-origin",
      "x-forwarded-for": from,
    },
    body: JSON.stringify({ token: "a token that nobody has" }),
  }).then(({ status }) => status);
/** How the eleventh in a minute fares, and what one from elsewhere does then. */
const afterTen = async () => {
  for (let n = 0; n < 10; n++) expect(await signIn("198.51.100.7")).toBe(401);
  return [await signIn("198.51.100.7"), await signIn("203.0.113.9")];
};

test("behind a proxy of ours, each person has sign-ins of their own, and the audit log their address", async () => {
  await start(["127.0.0.1", "10.0.0.0/8"]);
  expect(await afterTen()).toEqual([429, 401]);
  await expect.poll(() => api.audited.map(({ client }) => client)).toContain("203.0.113.9");
  // What stands before the last address that is no proxy of ours, the person may have written.
  await signIn("192.0.2.1, 203.0.113.10, 10.1.2.3");
  await expect.poll(() => api.audited.at(-1)?.client).toBe("203.0.113.10");
});

test("nobody else is believed about where they are", async () => {
  await start(["10.0.0.0/8"]);
  expect(await afterTen()).toEqual([429, 429]);
  await expect.poll(() => new Set(api.audited.map(({ client }) => client))).toEqual(new Set(["127.0.0.1"]));
});
