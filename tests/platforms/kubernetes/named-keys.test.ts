import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { namedIn } from "../../../src/platforms/kubernetes/named-keys.ts";

const TOKEN = "a-token-of-at-least-20-characters";

function read(key: string, value: string) {
  const problems: string[] = [];
  const data = { [key]: Buffer.from(value).toString("base64"), "api-token": "eA==" };
  const named = namedIn(data, { own: ["api-token"], onError: (problem) => problems.push(problem) });
  return { found: named.get(createHash("sha256").update(TOKEN).digest("hex")), size: named.size, problems };
}

test("a key names the role and the bearer; lines after the token say until when and for which tenants it is good", () => {
  expect(read("operator.ada.lovelace", TOKEN).found).toEqual({ name: "ada.lovelace", role: "operator" });
  const value = `${TOKEN}\nexpires: 2027-01-01T00:00:00Z\ntenants: customer=acme,!internal\n`;
  expect(read("tenant-admin.acme", value).found).toEqual({
    name: "acme",
    role: "tenant-admin",
    tenants: "customer=acme,!internal",
    expiresAt: "2027-01-01T00:00:00Z",
  });
});

test("a key that says anything else is passed over with what is allowed", () => {
  const wrong: [key: string, value: string, words: string][] = [
    ["root.ada", TOKEN, "ROLE.NAME with a role of"],
    ["operator.owner", TOKEN, "ROLE.NAME"],
    ["operator.ada", "short", "at least 20 characters"],
    ["tenant-admin.ada", TOKEN, "needs a selector"],
    ["operator.ada", `${TOKEN}\ntenants: a=b`, "for the whole cluster"],
    ["operator.ada", `${TOKEN}\nexpires: tomorrow`, "expires"],
    ["operator.ada", `${TOKEN}\nexpiry: 2027-01-01T00:00:00Z`, "expiry"],
    ["viewer.ada", `${TOKEN}\nrole admin`, "role admin"],
  ];
  for (const [key, value, words] of wrong) {
    const { size, problems } = read(key, value);
    expect([key, size, problems.length]).toEqual([key, 0, 1]);
    expect(problems[0]).toContain(words);
    expect(problems[0]).not.toContain(TOKEN);
  }
  expect(read("viewer.ada", `${TOKEN}\nrole: admin`).found).toEqual({ name: "ada", role: "viewer" });
});
