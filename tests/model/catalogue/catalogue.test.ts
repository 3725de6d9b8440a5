import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { errors } from "../../../src/gateway/errors.ts";
import { allCodes, CATALOGUE, explained, nearestCode } from "../../../src/model/catalogue/catalogue.ts";
import { PLACES, type Place } from "../../../src/model/catalogue/entry.ts";
import { reference, REFERENCE_FILE } from "../../../src/model/catalogue/reference.ts";
import { FLEET_PHASES } from "../../../src/model/fleet.ts";
import { MOVE_OUTCOMES, MOVE_REASONS } from "../../../src/model/move.ts";
import { ROOT } from "../../../src/model/project.ts";
import { codesInPython, codesInTypeScript, sourcesOf, type FoundCodes } from "./found-codes.ts";

/** Words between parts of the controller, which no answer, status, event or metric has. */
const INTERNAL = new Map([
  ["AllShardsFull", "why the planner makes a shard; the event ShardCreated has its message"],
  ["CpuTargetExceeded", "as AllShardsFull"],
  ["Unassigned", "why the planner places a tenant; the event Assigned has its message"],
  ["ShardGone", "as Unassigned"],
  ["Drained", "why the planner stops a shard; the event Stopping has its message"],
  ["Unused", "as Drained"],
  ["Due", "why the planner wakes a tenant; its status has the reason due"],
  ["AlreadyMoving", "why a move that was asked for is refused; the API answers NoPlace with its message"],
  ["NotPlaced", "as AlreadyMoving"],
  ["SameShard", "as AlreadyMoving"],
  ["WrongRelease", "as AlreadyMoving"],
  ["ShardFull", "as AlreadyMoving"],
  ["ForAnotherAlone", "as AlreadyMoving"],
  ["ShardNotFound", "as AlreadyMoving, with NotFound"],
]);

/** Reasons that are put together: their beginnings, and what comes after them. */
const BEGINNINGS: Record<string, readonly string[]> = {
  Move: Object.keys(MOVE_OUTCOMES).filter((outcome) => outcome !== "Succeeded"),
  Rollout: Object.keys(FLEET_PHASES).filter((phase) => !["Idle", "Canary", "Progressing"].includes(phase)),
  Shard: CATALOGUE.filter(({ met }) => met.includes("shard")).map(({ code }) => code),
};

let typescript: FoundCodes;
let python: FoundCodes;
beforeAll(() => {
  typescript = codesInTypeScript(sourcesOf("src/**/*.ts").filter(([file]) => !file.startsWith("src/model/catalogue/")));
  python = codesInPython(sourcesOf("multi_synapse/*.py", "multi_synapse/{options,patches}/**/*.py"));
  // Some hundred files are parsed, which takes its time on a machine that is busy.
}, 180_000);

function lacking(found: FoundCodes, isKnown: (code: string) => boolean, remedy: string): string[] {
  return [...found]
    .filter(([code]) => !isKnown(code))
    .map(([code, files]) => `${code} (${[...files].join(", ")}) is not explained: ${remedy}`);
}

const isMet = (code: string, place?: Place) =>
  explained(code).some((entry) => place === undefined || entry.met.includes(place));

describe("the catalogue of codes", () => {
  test("explains every code that the TypeScript sources make", () => {
    const isKnown = (code: string) =>
      code.endsWith("*") ? code.slice(0, -1) in BEGINNINGS : isMet(code) || INTERNAL.has(code);
    const remedy =
      "add it to the file of src/model/catalogue/ for where it is met and run `npm run docs`, or to INTERNAL in catalogue.test.ts if no operator meets it";
    expect(lacking(typescript, isKnown, remedy)).toEqual([]);
    expect(typescript.size).toBeGreaterThan(100);
  });

  test("explains every code that shards and preparers answer with", () => {
    const remedy =
      'add it to src/model/catalogue/runtime.ts and run `npm run docs`, or give the entry that it has `also: ["control"]`';
    expect(lacking(python, (code) => isMet(code, "control"), remedy)).toEqual([]);
    expect(python.size).toBeGreaterThan(25);
  });

  test("explains every reason that is put together of two words", () => {
    const all = Object.entries(BEGINNINGS).flatMap(([beginning, rest]) => rest.map((word) => `${beginning}${word}`));
    expect(all.filter((code) => !isMet(code))).toEqual([]);
    expect(explained("ShardNotStarted")).toEqual(explained("NotStarted"));
  });

  test("explains the reasons of moves and the answers of the gateway as such", () => {
    expect(MOVE_REASONS.filter((reason) => !isMet(reason, "move"))).toEqual([]);
    const answers = Object.values(errors).map((make) => (make as (argument: unknown) => { code: string })(1).code);
    expect(answers.filter((code) => !isMet(code, "gateway"))).toEqual([]);
    expect(answers.toSorted()).toEqual([...new Set(answers)].toSorted());
    expect(answers.length).toBe(CATALOGUE.filter(({ met }) => met[0] === "gateway").length);
  });

  test("has no code that nothing uses", () => {
    const together = Object.entries(BEGINNINGS).flatMap(([beginning, rest]) =>
      typescript.has(`${beginning}*`) ? rest.map((word) => `${beginning}${word}`) : [],
    );
    const used = new Set([...typescript.keys(), ...python.keys(), ...together]);
    // Those with a definition in the model are made from it.
    const written = CATALOGUE.filter(
      ({ met: [main = "phase"] }) => !["sleep", "wake", "purge", "phase"].includes(main),
    );
    const unused = written
      .filter(({ code }) => !used.has(code))
      .map(({ code }) => `${code}: remove it from src/model/catalogue/`);
    expect(unused).toEqual([]);
    expect([...INTERNAL.keys()].filter((code) => !used.has(code))).toEqual([]);
  });

  test("says one thing of a code in one place", () => {
    const seen = new Set<string>();
    const twice = CATALOGUE.flatMap(({ code, met }) =>
      met
        .filter((place) => place !== "phase")
        .flatMap((place) => {
          const key = `${code} as ${place}`;
          if (seen.has(key)) return [key];
          seen.add(key);
          return [];
        }),
    );
    expect(twice).toEqual([]);
    expect(CATALOGUE.filter(({ met }) => met.some((place) => !(place in PLACES)))).toEqual([]);
  });

  test("speaks in sentences, and names runbooks that exist", () => {
    const isSentence = (text: string) => /^.{8,240}\.$/.test(text);
    const wrong = CATALOGUE.filter(({ means, todo = "Nothing at all." }) => !isSentence(means) || !isSentence(todo));
    expect(wrong).toEqual([]);
    const runbooks = [...new Set(CATALOGUE.flatMap(({ runbook = [] }) => runbook))];
    expect(runbooks.filter((runbook) => !existsSync(join(ROOT, "docs/runbooks", `${runbook}.md`)))).toEqual([]);
    expect(CATALOGUE.filter(({ todo, runbook }) => runbook !== undefined && todo === undefined)).toEqual([]);
  });

  test("finds a code whatever its capitals, and the one that was meant", () => {
    expect(explained("maxshardsreached").map(({ code }) => code)).toEqual(["MaxShardsReached"]);
    expect(explained("MaxShardReached")).toEqual([]);
    expect(nearestCode("MaxShardReached")).toBe("MaxShardsReached");
    expect(nearestCode("Xyzzy")).toBeUndefined();
    expect(allCodes()).toContain("poll");
  });

  test("is what docs/errors.md says; `npm run docs` writes it", async () => {
    expect(await readFile(REFERENCE_FILE, "utf8")).toBe(reference());
  });
});

describe("finding codes in sources", () => {
  const inTypeScript = (text: string, ...others: string[]) =>
    [
      ...codesInTypeScript([
        ["a.ts", text],
        ...others.map((other, at): [string, string] => [`b${at}.ts`, other]),
      ]).keys(),
    ].toSorted();

  test("finds what is set, declared or chosen as a reason or a code", () => {
    expect(inTypeScript(`const e = { reason: "AsReason", code: x ? "AsCode" : (y ?? "OtherCode") };`)).toEqual([
      "AsCode",
      "AsReason",
      "OtherCode",
    ]);
    expect(inTypeScript(`status.reason = "Assigned"; const reason = "Kept" as const;`)).toEqual(["Assigned", "Kept"]);
    expect(inTypeScript(`interface A { reason: "OfType" | "OfOther" }`)).toEqual(["OfOther", "OfType"]);
    expect(inTypeScript(`const WAITING = "Waiting"; const e = { reason: WAITING };`)).toEqual(["Waiting"]);
    expect(inTypeScript("const e = { reason: `Shard${word}` };")).toEqual(["Shard*"]);
  });

  test("finds the members of types and tables of reasons", () => {
    expect(inTypeScript(`export type KeepReason = "CoolDown" | OtherReason; type OtherWord = "NoReason";`)).toEqual([
      "CoolDown",
    ]);
    expect(inTypeScript(`const A_REASONS = { Idle: "x" } as const; const B_REASONS = ["Drain"] as const;`)).toEqual([
      "Drain",
      "Idle",
    ]);
  });

  test("finds what is passed for a parameter that is a reason or a code", () => {
    const failure = `export class Failure extends Error { constructor(reason: string, message: string) { super(message); } }`;
    expect(inTypeScript(`throw new Failure("Broken", "Not this");`, failure)).toEqual(["Broken"]);
    expect(
      inTypeScript(`class A { #say(type: string, reason: string) {} go() { this.#say("Normal", "Said"); } }`),
    ).toEqual(["Said"]);
    const other = `class B { #say(reason: string, message: string) {} go() { this.#say("Told", "Nothing"); } }`;
    expect(
      inTypeScript(`class A { #say(type: string, reason: string) {} go() { this.#say("Normal", "Said"); } }`, other),
    ).toEqual(["Said", "Told"]);
  });

  test("leaves comparisons and other words alone", () => {
    expect(inTypeScript(`if (status.reason === "Compared") go({ message: "Word", type: "Normal" });`)).toEqual([]);
  });

  test("finds what Python raises and answers with", () => {
    const text = `STALLED = "Stalled"\nraise Refused(404, "NotHere", "x")\nreturn {"code": "OfEvent"}\nraise TenantError(\n    "Bare", "x")\n`;
    expect([...codesInPython([["a.py", text]]).keys()].toSorted()).toEqual(["Bare", "NotHere", "OfEvent", "Stalled"]);
  });
});
