import { spawnSync } from "node:child_process";
import { appendFileSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from "node:fs";
import { open } from "node:fs/promises";
import { join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import { PATIENCE_MS } from "../../support/patience.ts";
import { ClusterConfigSchema } from "../../../src/model/cluster-config.ts";
import { machineProblem } from "../../../src/model/machine-problem.ts";
import { diskProblems } from "../../../src/platforms/local/disks.ts";
import { cutLog } from "../../../src/platforms/local/up/log-keeper.ts";
import { settingsForNextStart, withFixedSettings } from "../../../src/platforms/local/up/part-configs.ts";
import { temporaryDirectory } from "./support.ts";

describe("what is wrong with the machine", () => {
  const coded = (code: string, more: object = {}) => Object.assign(new Error(code), { code, ...more });

  test("is said in a sentence, with the file it is about", async () => {
    expect(machineProblem(coded("EROFS", { path: "/data/x" }))).toMatch(/^\/data\/x: the file system is read-only/);
    expect(machineProblem(coded("EMFILE"))).toContain("ulimit -n");
    expect(machineProblem(coded("EAGAIN", { syscall: "spawn python3" }))).toMatch(/^python3: no further process/);
    expect(machineProblem(new TypeError("x is undefined"))).toBeUndefined();
    expect(machineProblem(coded("ERR_INVALID_ARG_TYPE"))).toBeUndefined();
  });

  test("is known of SQLite, whose errors have codes of their own", async () => {
    const directory = await temporaryDirectory();
    const file = join(directory, "small.db");
    const db = new DatabaseSync(file);
    db.exec("PRAGMA page_size = 512; PRAGMA max_page_count = 8; CREATE TABLE t (x)");
    let failure: unknown;
    try {
      db.prepare("INSERT INTO t VALUES (?)").run("x".repeat(100_000));
    } catch (error) {
      failure = error;
    }
    db.close();
    expect(machineProblem(failure)).toMatch(/no space is left/);
  });

  test("is no bug to the command line: no descriptors, no memory, a read-only directory", async () => {
    const main = resolve(import.meta.dirname, "../../../src/cli/main.ts");
    const up = (limits: string, data: string) =>
      spawnSync("/bin/sh", ["-c", `${limits}; exec "$0" "$@"`, process.execPath, main, "up", "--data", data], {
        encoding: "utf8",
        timeout: PATIENCE_MS,
      });
    const readOnly = up("true", "/proc/nowhere");
    expect(readOnly.status).toBe(1);
    expect(readOnly.stderr).toMatch(
      /^error: cannot use \/proc\/nowhere as the data directory: .{10,}; give another one/,
    );
    const directory = await temporaryDirectory();
    const descriptors = up("ulimit -n 24", join(directory, "data"));
    expect(descriptors.stderr).not.toContain("this is a bug");
    expect(descriptors.stderr).toMatch(/descriptors|EMFILE/);
  }, 120_000);
});

describe("disks", () => {
  const places = [
    { directory: "/", what: "store" },
    { directory: "/usr", what: "releases" },
  ];
  const at = (bytes: number, share: number, inodes = 1000) =>
    diskProblems(places.slice(0, 1), () => ({ bytes, share, inodes }));

  test("that are full, or nearly, are named with what is kept there", () => {
    expect(at(1024, 0)).toEqual([expect.stringMatching(/^the disk of \/ \(store\) is full/)]);
    expect(at(2 ** 29, 0.01)).toEqual([expect.stringMatching(/is nearly full: 512 MiB are left \(1.0 %\)/)]);
    expect(at(2 ** 40, 0.5, 0)).toEqual([expect.stringMatching(/inodes/)]);
    expect(at(2 ** 29, 0.5)).toEqual([]);
    expect(at(2 ** 40, 0.01)).toEqual([]);
  });

  test("are named once, whatever is on them; what is not there is left out", () => {
    const sameDisk = [...places.slice(0, 1), { directory: "/", what: "media" }, { directory: "/nowhere", what: "x" }];
    expect(diskProblems(sameDisk, () => ({ bytes: 0, share: 0, inodes: 1 }))).toEqual([
      expect.stringContaining("(store, media)"),
    ]);
  });
});

describe("logs that nobody bounds", () => {
  test("are begun again in place, with their end kept, and their writer goes on", async () => {
    const file = join(await temporaryDirectory(), "output.log");
    const writer = openSync(file, "a");
    for (let n = 0; n < 1000; n++) writeSync(writer, `line ${n}\n`);
    cutLog(file, 100_000, 100);
    expect(statSync(file).size).toBeGreaterThan(5000);
    cutLog(file, 5_000, 100);
    expect(statSync(file).size).toBe(0);
    const kept = readFileSync(`${file}.1`, "utf8");
    expect(kept).toMatch(/^line \d+\n/);
    expect(kept.endsWith("line 999\n")).toBe(true);
    writeSync(writer, "next\n");
    expect(readFileSync(file, "utf8")).toBe("next\n");
    await (await open(file)).close();
    appendFileSync(file, "");
  });
});

describe("a reload", () => {
  const config = (settings: object) => ClusterConfigSchema.parse(settings);

  test("takes up limits, and tells which settings wait for the next start", () => {
    const before = config({});
    const after = config({
      maxTenantsPerShard: 3,
      gateway: { port: 1, maxInFlightPerTenant: 9 },
      baseDomain: "example.org",
    });
    expect(settingsForNextStart(before, after)).toEqual(["gateway.port", "baseDomain"]);
    const taken = withFixedSettings(before, after);
    expect(taken).toMatchObject({
      maxTenantsPerShard: 3,
      baseDomain: "localhost",
      gateway: { port: 8008, maxInFlightPerTenant: 9 },
    });
    expect(settingsForNextStart(before, before)).toEqual([]);
  });
});

describe("the unit file for systemd", () => {
  const unit = readFileSync(resolve(import.meta.dirname, "../../../packaging/systemd/synapse-shards.service"), "utf8");

  test("starts the program with options that it has", async () => {
    const [, ...words] = /^ExecStart=(.*)$/m.exec(unit)![1]!.split(" ");
    expect(words[0]).toBe("/opt/synapse-shards/bin/synapse-shards.mjs");
    const main = resolve(import.meta.dirname, "../../../src/cli/main.ts");
    const { stderr } = spawnSync(process.execPath, [main, ...words.slice(1)], {
      encoding: "utf8",
      timeout: PATIENCE_MS,
    });
    // Its configuration is not here; its options are known.
    expect(stderr).toMatch(/cannot read the configuration file \/etc\/synapse-shards\/cluster.yaml/);
  });

  test("leaves shards alone when the program crashes, and a wrong configuration as it is", () => {
    expect(unit).toMatch(/^KillMode=process$/m);
    expect(unit).toMatch(/^RestartPreventExitStatus=2$/m);
    expect(unit).toMatch(/^ExecReload=\/bin\/kill -HUP \$MAINPID$/m);
  });

  test("is accepted by systemd", async () => {
    const file = join(await temporaryDirectory(), "synapse-shards.service");
    writeFileSync(file, unit.replace(/^ExecStart=.*$/m, "ExecStart=/bin/true"));
    const { error, stderr } = spawnSync("systemd-analyze", ["verify", file], { encoding: "utf8" });
    if (error) return; // There is no systemd here.
    expect(stderr.split("\n").filter((line) => line.includes("synapse-shards.service"))).toEqual([]);
  });
});
