import { expect, test } from "vitest";
import {
  cleanOwnEnvironment,
  nodeEnvironment,
  pipEnvironment,
  pythonEnvironment,
  systemEnvironment,
} from "../../../src/platforms/local/environment.ts";

const FROM = {
  PATH: "/bin",
  HOME: "/home/x",
  LANG: "de_DE.ISO-8859-1",
  PGOPTIONS: "-c x=y",
  PYTHONHOME: "/nowhere",
  PYTHONUTF8: "0",
  NODE_OPTIONS: "--require=x",
  https_proxy: "http://proxy",
  PIP_INDEX_URL: "https://mirror",
  PIP_TARGET: "/elsewhere",
  SYNAPSE_SHARDS_CACHE: "/cache",
  AWS_SECRET_ACCESS_KEY: "secret",
};

test("a process gets what is named, in UTF-8, and nothing else", () => {
  const system = { PATH: "/bin", HOME: "/home/x", LANG: "C.UTF-8", LC_ALL: "C.UTF-8" };
  expect(systemEnvironment(FROM)).toEqual(system);
  const python = { PYTHONUTF8: "1", PYTHONNOUSERSITE: "1", PYTHONSAFEPATH: "1", PYTHONUNBUFFERED: "1" };
  expect(pythonEnvironment(FROM)).toEqual({ ...system, ...python });
  const download = { https_proxy: "http://proxy", PIP_INDEX_URL: "https://mirror" };
  expect(pipEnvironment(FROM)).toMatchObject({ ...system, ...python, ...download });
  expect(pipEnvironment(FROM)).not.toHaveProperty("PIP_TARGET");
  const node = { SYNAPSE_SHARDS_CACHE: "/cache", MALLOC_ARENA_MAX: "2" };
  expect(nodeEnvironment(FROM, null)).toEqual({ ...system, ...download, ...node });
  expect(nodeEnvironment(FROM, "/modules/.cache/v24-x64")).toEqual({
    ...nodeEnvironment(FROM, null),
    NODE_COMPILE_CACHE: "/modules/.cache",
  });
});

test("libraries that read the environment find nothing in it that was not named", () => {
  const own: Record<string, string | undefined> = { ...FROM, TERM: "xterm" };
  cleanOwnEnvironment(own);
  const kept = ["HOME", "PATH", "PIP_INDEX_URL", "SYNAPSE_SHARDS_CACHE", "TERM", "https_proxy"];
  expect(Object.keys(own).toSorted()).toEqual(kept);
});
