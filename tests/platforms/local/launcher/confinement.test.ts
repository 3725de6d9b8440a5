import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { findMeans } from "../../../../src/platforms/local/launcher/confinement.ts";
import { temporaryDirectory } from "../support.ts";

const PYTHON = "/usr/bin/python3";

/** On a kernel with this version of Landlock. */
async function meansOf(landlock: number, uid: number, mode = 0o755) {
  const directory = await temporaryDirectory();
  chmodSync(directory, mode);
  const helper = join(directory, "probe.py");
  writeFileSync(helper, `print('{"landlock": ${landlock}}')`);
  return findMeans({ python: PYTHON, helper, places: [directory] }, uid);
}

test("says what is weaker on this machine, and what to do about it", async () => {
  expect((await meansOf(6, 0)).weaknesses).toEqual([]);
  expect((await meansOf(6, 1000)).weaknesses).toEqual([]);
  // Users keep shards from ending each other.
  expect((await meansOf(5, 0)).weaknesses).toEqual([]);
  expect((await meansOf(5, 1000)).weaknesses).toEqual([expect.stringMatching(/Linux 6\.12.*can end other shards/)]);
  expect((await meansOf(0, 0)).weaknesses).toEqual([expect.stringMatching(/no Landlock.*only users and file modes/)]);
  expect((await meansOf(0, 1000)).weaknesses).toEqual([expect.stringMatching(/reaches the files of all/)]);
});

test("names the directory that no other user can enter, for which shards run as root", async () => {
  const { users, weaknesses } = await meansOf(6, 0, 0o700);
  expect(users).toBe(false);
  expect(weaknesses).toEqual([expect.stringMatching(/no other user can enter .*use a directory/)]);
});
