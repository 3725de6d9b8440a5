import { execFile } from "node:child_process";
import { chownSync, existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { temporaryDirectory } from "../platforms/local/support.ts";

/** A Python that every user can run. */
const PYTHON = "/usr/bin/python3";
const NOBODY = 65_534;
const root = process.getuid?.() === 0;

interface Report {
  means: { users: boolean; landlock: number; weaknesses: string[] };
  findings: Record<string, string>;
}

async function scenario(way: "forked" | "started", user?: number): Promise<Report> {
  const directory = await temporaryDirectory();
  if (user !== undefined) chownSync(directory, user, user);
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [join(import.meta.dirname, "hostile/scenario.ts"), directory, PYTHON, way],
    {
      ...(user === undefined ? {} : { uid: user, gid: user }),
      cwd: "/",
      env: { PATH: "/usr/bin:/bin", HOME: directory },
    },
  );
  return JSON.parse(stdout) as Report;
}

const OWN = {
  "own media: made": "None",
  "own media: written": "1",
  "own media: read": "'x'",
  "own media of an earlier version": "'old media'",
  "own state: written": "1",
  "own token: read": "True",
  "neighbour's media: written by itself": "1",
  "neighbour's state: written by itself": "1",
  "kept open": "True",
  "moved: read by its new shard": "'x'",
  "moved: written by its new shard": "1",
  "moved: a new file": "1",
  "back after its shard was removed": "'x'",
  "core size": "(0, 0)",
  "more privileges": "1",
  capabilities: "'0000000000000000'",
  "memory is limited": "True",
  "descriptors are limited": "True",
  "processes are limited, with a user of its own": "True",
  "preparer: its own directory, written": "1",
  "preparer: more privileges": "1",
  "preparer: capabilities": "'0000000000000000'",
  "link for a log": "None",
  "its log, which leads to the store": "",
  "pipe for an announcement": "None",
  "its state": "starting",
  removed: "False",
};

/** Without Landlock, or with one that knows no signals, nothing but users keeps them apart: then this is not promised. */
function isPromised(title: string, { landlock, users }: Report["means"]): boolean {
  if (landlock === 0 && !users) return false;
  if (title.includes("had open") || title.startsWith("a file of another")) return landlock > 0;
  return title !== "neighbour ended" || users || landlock >= 6;
}

function reached({ means, findings }: Report): [string, string][] {
  const foreign = Object.entries(findings).filter(([title]) => !(title in OWN));
  expect(foreign.length).toBeGreaterThan(15);
  return foreign.filter(([title, found]) => found !== "PermissionError" && isPromised(title, means));
}

function own({ findings }: Report): Record<string, string> {
  return Object.fromEntries(Object.entries(findings).filter(([title]) => title in OWN));
}

const WAYS = ["forked", "started"] as const;

describe.skipIf(!existsSync(PYTHON))("a hostile process in a shard", () => {
  test.each(WAYS)(
    "that is %s reaches its own tenants' files and nothing else, and a preparer its own directory",
    async (way) => {
      const report = await scenario(way);
      expect(own(report)).toEqual(OWN);
      expect(reached(report)).toEqual([]);
      expect(report.means.users).toBe(root);
      expect(report.means.weaknesses).toHaveLength(report.means.landlock < (root ? 1 : 6) ? 1 : 0);
    },
  );

  test.skipIf(!root).each(WAYS)("that is %s reaches no more where the cluster has no privileges", async (way) => {
    const report = await scenario(way, NOBODY);
    expect(own(report)).toEqual(OWN);
    expect(reached(report)).toEqual([]);
    expect(report.means.users).toBe(false);
    expect(report.means.weaknesses).toHaveLength(report.means.landlock < 6 ? 1 : 0);
  });
});
