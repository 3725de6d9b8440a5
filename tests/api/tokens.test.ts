import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHash } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import fastify from "fastify";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isOwner } from "../../src/api/access/authentication.ts";
import { FileEnds } from "../../src/api/access/ended-sessions.ts";
import { FileUses } from "../../src/api/access/last-uses.ts";
import { FileTokens } from "../../src/api/access/named-tokens.ts";
import { Sessions } from "../../src/api/access/sessions.ts";
import { lineSender } from "../../src/api/streams.ts";

const DAY_MS = 86_400_000;
const BEGIN = Date.parse("2026-11-01T00:00:00Z");

let directory: string;
let clock: number;
let problems: string[];
let writes: string[];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tokens-"));
  clock = BEGIN;
  problems = [];
  writes = [];
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const now = () => new Date(clock);
const state = (name: string) => ({
  file: join(directory, name),
  write: (text: string) => {
    writes.push(name);
    writeFileSync(join(directory, name), text);
  },
  onProblem: (problem: string) => void problems.push(problem),
});
const tokensOf = () => new FileTokens({ ...state("tokens.json"), uses: new FileUses(state("uses.json"), now), now });
const digest = (token: string) => createHash("sha256").update(token).digest("hex");

test("a token is useless from the moment that it expires, and its name is free", () => {
  const tokens = tokensOf();
  const expiresAt = new Date(BEGIN + DAY_MS).toISOString();
  const token = tokens.create("ci", "operator", { expiresAt });
  clock = BEGIN + DAY_MS - 1;
  expect(tokens.actorOf(digest(token))).toEqual({ name: "ci", role: "operator" });
  expect(() => tokens.create("ci", "operator")).toThrow("already");
  clock += 1;
  expect(tokens.actorOf(digest(token))).toBeUndefined();
  expect(tokensOf().actorOf(digest(token))).toBeUndefined();
  const next = tokens.create("ci", "viewer");
  expect(tokens.actorOf(digest(next))).toEqual({ name: "ci", role: "viewer" });
  expect(tokens.list()).toHaveLength(1);
});

test("the last use is known also after a restart, and written down every five minutes at most", () => {
  const tokens = tokensOf();
  const token = tokens.create("ci", "operator");
  const { length } = writes;
  for (let second = 0; second < 299; second += 1, clock += 1000) tokens.actorOf(digest(token));
  expect(writes.slice(length)).toEqual(["uses.json"]);
  expect(tokensOf().list()[0]?.lastUsedAt).toBe(new Date(BEGIN).toISOString());
  clock += 1000;
  tokens.actorOf(digest(token));
  expect(tokensOf().list()[0]?.lastUsedAt).toBe(new Date(BEGIN + 300_000).toISOString());
  // Another token of the name was never used.
  tokens.revoke("ci");
  clock += 1000;
  tokens.create("ci", "operator");
  expect(tokens.list()[0]?.lastUsedAt).toBeUndefined();
});

test("a disk that takes no note of a use keeps nobody out", () => {
  const full = {
    ...state("uses.json"),
    write: () => {
      throw new Error("no space left on device");
    },
  };
  const tokens = new FileTokens({ ...state("tokens.json"), uses: new FileUses(full, now), now });
  const token = tokens.create("ci", "viewer");
  expect(tokens.actorOf(digest(token))).toMatchObject({ name: "ci" });
  expect(problems[0]).toContain("no space left");
});

test("the file has the digest, and never the token", () => {
  const token = tokensOf().create("ada", "tenant-admin", { tenants: "customer=acme" });
  const text = readFileSync(join(directory, "tokens.json"), "utf8");
  expect(text).toContain(digest(token));
  expect(text).not.toContain(token);
  expect(tokensOf().actorOf(digest(token))).toEqual({ name: "ada", role: "tenant-admin", tenants: "customer=acme" });
});

test("a file that gives a tenant admin no limit is refused, and the tokens from before stay", () => {
  const tokens = tokensOf();
  const token = tokens.create("ada", "tenant-admin", { tenants: "customer=acme" });
  const text = readFileSync(join(directory, "tokens.json"), "utf8");
  writeFileSync(join(directory, "tokens.json"), text.replace(/\s*"tenants": "customer=acme",/, ""));
  expect(tokens.actorOf(digest(token))).toMatchObject({ tenants: "customer=acme" });
  expect(problems[0]).toContain("needs a selector");
});

test("a session that was signed out stays so at the next controller, for as long as it would have been good", async () => {
  const sessions = () => new Sessions(() => ["owner-token"], now, new FileEnds(state("ended.json")));
  const subject = { kind: "token", digest: "d" } as const;
  const [ended, stays] = await Promise.all([sessions().begin(subject), sessions().begin(subject)]);
  await sessions().end((await sessions().open(ended.sealed))!);
  expect(await sessions().open(ended.sealed)).toBeUndefined();
  expect(await sessions().open(stays.sealed)).toMatchObject({ subject });
  // What is over anyway is forgotten.
  clock += 13 * 3_600_000;
  const later = await sessions().begin(subject);
  await sessions().end((await sessions().open(later.sealed))!);
  expect(Object.keys(JSON.parse(readFileSync(join(directory, "ended.json"), "utf8")) as object)).toHaveLength(1);
});

test("what was sealed for one purpose is good for no other", async () => {
  const sessions = new Sessions(() => ["owner-token"], now);
  const expiresAt = new Date(clock + 1000);
  const sealed = await sessions.seal({ subject: { kind: "token", digest: "d" } }, { purpose: "a flow", expiresAt });
  expect(await sessions.open(sealed)).toBeUndefined();
  expect(await sessions.unseal(sealed, "a flow")).toMatchObject({ subject: { digest: "d" } });
  clock += 2000;
  expect(await sessions.unseal(sealed, "a flow")).toBeUndefined();
});

test("who is called like the owner is not the owner", () => {
  expect(isOwner({ name: "owner", role: "admin" })).toBe(false);
});

test("a stream ends when its reader's token does", async () => {
  const app = fastify();
  let isGood = true;
  const sendLines = lineSender(new AbortController().signal, pino({ level: "silent" }), 5);
  app.get("/", async (request, reply) => {
    request.isStillGood = async () => isGood;
    await sendLines(reply, {
      contentType: "text/plain",
      lines: async function* (signal) {
        yield "first";
        while (!signal.aborted) await turn();
      },
    });
  });
  const url = await app.listen({ host: "127.0.0.1", port: 0 });
  const reader = (await fetch(url)).body!.getReader();
  expect((await reader.read()).value).toBeDefined();
  isGood = false;
  await expect(reader.read()).rejects.toThrow("terminated");
  await app.close();
});
