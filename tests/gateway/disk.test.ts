import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { LogFile } from "../../src/logging/log-file.ts";
import { ask, Bench, eventually, serving } from "./harness.ts";

const isRoot = process.getuid?.() === 0;
const mounts: string[] = [];
let bench: Bench | undefined;
afterEach(async () => {
  await bench?.stop();
  bench = undefined;
  for (const mount of mounts.splice(0)) {
    execFileSync("umount", ["-l", mount]);
    rmSync(mount, { recursive: true });
  }
});

/** A file system of its own with so little room; needs root. */
function smallDisk(size: string): string {
  const directory = mkdtempSync(join(tmpdir(), "gateway-disk-"));
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", directory]);
  mounts.push(directory);
  return directory;
}

/** Takes what is left of it. */
function fill(disk: string): void {
  try {
    for (let i = 0; ; i += 1) writeFileSync(join(disk, `filler-${i}`), Buffer.alloc(4096));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  }
}

function empty(disk: string): void {
  for (let i = 0; existsSync(join(disk, `filler-${i}`)); i += 1) rmSync(join(disk, `filler-${i}`));
}

describe("a log", () => {
  it.skipIf(!isRoot)(
    "drops lines while its disk is full, says so once elsewhere, and how many once there is room (needs root)",
    () => {
      const disk = smallDisk("64k");
      const problems: string[] = [];
      const path = join(disk, "a.log");
      const log = new LogFile({ path, onProblem: (sentence) => problems.push(sentence) });
      log.write("first\n");
      fill(disk);
      for (let i = 0; i < 100; i += 1) log.write(`${"x".repeat(200)}\n`);
      expect(problems).toEqual([
        `the log ${path} cannot be written: no space is left on its disk; its lines are dropped until it can be`,
      ]);
      empty(disk);
      log.write('{"msg":"last"}\n');
      const lines = readFileSync(path, "utf8").trimEnd().split("\n");
      expect(lines[0]).toBe("first");
      expect(lines.at(-1)).toBe('{"msg":"last"}');
      expect(JSON.parse(lines.at(-2)!)).toMatchObject({ level: 40, dropped: expect.any(Number) });
    },
  );

  it("is begun again when it is large, and goes on in a new file when somebody moved it away", () => {
    const directory = mkdtempSync(join(tmpdir(), "gateway-log-"));
    const path = join(directory, "made", "a.log");
    const log = new LogFile({ path, maxBytes: 100 });
    for (let i = 0; i < 30; i += 1) log.write(`line ${i}\n`);
    expect(readFileSync(path, "utf8").length).toBeLessThan(110);
    expect(readFileSync(`${path}.1`, "utf8")).toMatch(/^line \d+\n/);
    renameSync(path, `${path}.moved`);
    log.write("unseen\n");
    log.reopen();
    log.write("seen\n");
    expect(readFileSync(path, "utf8")).toBe("seen\n");
    rmSync(directory, { recursive: true });
  });

  it("that cannot be opened costs its lines, not the process", () => {
    const directory = mkdtempSync(join(tmpdir(), "gateway-log-"));
    writeFileSync(join(directory, "file"), "");
    const problems: string[] = [];
    const log = new LogFile({ path: join(directory, "file", "a.log"), onProblem: (text) => problems.push(text) });
    log.write("lost\n");
    expect(problems).toHaveLength(1);
    rmSync(directory, { recursive: true });
  });
});

describe("the gateway's process", () => {
  it.skipIf(!isRoot)(
    "starts, serves and stops on a full disk, and writes its routes when there is room (needs root)",
    async () => {
      const disk = smallDisk("128k");
      bench = await Bench.start([]);
      const origin = await bench.origin();
      bench.controller.routes = [serving("a", origin)];
      fill(disk);
      const files = { logFile: join(disk, "gateway.log"), routesFile: join(disk, "routes.json") };
      const gateway = await bench.spawn({ ...files, readyFile: join(disk, "ready.json"), logLevel: "debug" });
      const ready = await gateway.ready;
      await eventually("it has the routes", async () => (await ask(ready, "a.example")).status === 200);
      expect(gateway.errors()).toMatch(/^gateway: the log .* no space is left on its disk/m);
      expect(gateway.errors()).not.toContain("    at ");
      empty(disk);
      await eventually(
        "its log has something again",
        async () =>
          (await ask(ready, "a.example")).status === 200 && readFileSync(files.logFile, "utf8").includes("dropped"),
      );
      expect(readFileSync(files.logFile, "utf8")).toMatch(/routes file could not be written|dropped/);
      bench.controller.send([serving("b", origin)]);
      await eventually("its routes are on disk", () => existsSync(files.routesFile));
      expect(await gateway.stop()).toBe(0);
    },
    60_000,
  );

  it.skipIf(!isRoot)(
    "serves from a read-only directory, with a sentence for each file that it cannot write (needs root)",
    async () => {
      const disk = smallDisk("128k");
      mkdirSync(join(disk, "data"));
      execFileSync("mount", ["-o", "remount,ro", disk]);
      bench = await Bench.start([]);
      const origin = await bench.origin();
      bench.controller.routes = [serving("a", origin)];
      const at = (name: string) => join(disk, "data", name);
      const gateway = await bench.spawn({
        logFile: at("gateway.log"),
        routesFile: at("routes.json"),
        readyFile: at("ready.json"),
      });
      const ready = await gateway.ready;
      await eventually("it has the routes", async () => (await ask(ready, "a.example")).status === 200);
      expect(gateway.errors()).toMatch(/its file system is read-only; its lines are dropped/);
      expect(await gateway.stop()).toBe(0);
    },
    60_000,
  );

  it("keeps serving when it has no descriptors left: what cannot be connected waits, and connections beyond them are refused", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    bench.controller.routes = [serving("a", origin)];
    const gateway = await bench.spawn({ maxConnectionsPerAddress: 10_000 }, ["prlimit", "--nofile=160:160"]);
    const ready = await gateway.ready;
    await eventually("it has the routes", async () => (await ask(ready, "a.example")).status === 200);
    const { Wire } = await import("./harness.ts");
    const wires = Array.from({ length: 200 }, () => new Wire(ready.port));
    for (const wire of wires) wire.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    const answered = () => wires.filter((wire) => wire.text.startsWith("HTTP/1.1 200 "));
    await eventually("each is answered or refused", () =>
      wires.every((wire) => wire.closed || wire.text.startsWith("HTTP/1.1 200 ")),
    );
    expect(wires.filter((wire) => wire.closed).length).toBeGreaterThanOrEqual(100);
    expect(answered().length).toBeGreaterThan(20);
    for (const wire of wires) wire.destroy();
    await eventually("it serves as before", () =>
      ask(ready, "a.example").then(
        ({ status }) => status === 200,
        () => false,
      ),
    );
    expect(await gateway.stop()).toBe(0);
  }, 60_000);

  it("reopens its log and takes up its configuration on SIGHUP, and says what takes a restart", async () => {
    bench = await Bench.start([]);
    const origin = await bench.origin();
    bench.controller.routes = [serving("a", origin)];
    const logFile = bench.file("gateway.log");
    const gateway = await bench.spawn({ logFile, logLevel: "info", maxBodyBytes: 1024 });
    const ready = await gateway.ready;
    const post = () => ask(ready, "a.example", { method: "POST", body: "x".repeat(2000) });
    await eventually("it has the routes", async () => (await post()).status === 413);
    renameSync(logFile, `${logFile}.moved`);
    gateway.configure({
      logFile,
      logLevel: "info",
      maxBodyBytes: 4096,
      adminApi: true,
      routesFile: bench.file("other"),
    });
    gateway.process.kill("SIGHUP");
    await eventually("it takes larger bodies", async () => (await post()).status === 200);
    expect((await ask(ready, "a.example", { path: "/_synapse/admin/v1/x" })).status).toBe(200);
    const log = await eventually(
      "the new log tells",
      () => existsSync(logFile) && /"keys":\["routesFile"\]/.test(readFileSync(logFile, "utf8")),
    );
    expect(log).toBe(true);
    gateway.configure({ logFile, maxBodyBytes: "many" });
    gateway.process.kill("SIGHUP");
    await eventually("a wrong one is refused", () =>
      /maxBodyBytes.*the configuration before stays in use/.test(readFileSync(logFile, "utf8")),
    );
    expect((await post()).status).toBe(200);
    expect(await gateway.stop()).toBe(0);
  }, 60_000);
});
