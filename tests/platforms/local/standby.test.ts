import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { Standby } from "../../../src/platforms/local/up/standby.ts";
import { temporaryDirectory } from "./support.ts";

/** A part that notes what it does: it is loaded, and later serves. */
const PROGRAM = `
import { appendFileSync, writeFileSync } from "node:fs";
const [ready, notes, ...rest] = process.argv.slice(2);
const note = (what) => appendFileSync(notes, process.pid + " " + what + "\\n");
note("is loaded");
if (rest.includes("--standby")) {
  process.send({ standby: true });
  await new Promise((resolve) => process.once("message", resolve));
}
note("serves");
writeFileSync(ready, JSON.stringify({ pid: process.pid }));
setInterval(() => {}, 1000);
`;

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

const pids: number[] = [];
afterEach(() => {
  for (const pid of pids.splice(0)) if (alive(pid)) process.kill(pid, "SIGKILL");
});

async function standby() {
  const directory = await temporaryDirectory();
  const [program, notes, readyFile] = ["program.mjs", "notes", "ready.json"].map((name) => join(directory, name));
  await writeFile(program!, PROGRAM);
  await writeFile(notes!, "");
  const part = new Standby({
    title: "the part",
    args: [program!, readyFile!, notes!],
    readyFile: readyFile!,
    outputFile: join(directory, "output.log"),
  });
  const noted = async () => (await readFile(notes!, "utf8")).trim().split("\n");
  const launch = async () => {
    const running = await part.launch(new AbortController().signal);
    pids.push(running.pid);
    return running;
  };
  return { part, noted, launch };
}

const waitingIn = (notes: string[]) =>
  notes
    .filter((line) => line.endsWith("is loaded"))
    .map((line) => Number(line.split(" ")[0]))
    .filter((pid) => !notes.includes(`${pid} serves`));

test("the one that waits takes over, and another one gets ready", async () => {
  const { part, noted, launch } = await standby();
  const first = await launch();
  await expect.poll(() => part.isReady).toBe(true);
  const [second] = waitingIn(await noted());
  process.kill(first.pid, "SIGKILL");
  expect(await first.ended).toBe("SIGKILL");
  const running = await launch();
  expect(running.pid).toBe(second);
  await expect.poll(() => part.isReady).toBe(true);
  const [third] = waitingIn(await noted());
  expect(third).not.toBe(second);
  part.close();
  await expect.poll(() => alive(third!)).toBe(false);
  expect(alive(running.pid)).toBe(true);
});

test("where the one that waits has ended, a new one is started", async () => {
  const { part, noted, launch } = await standby();
  const first = await launch();
  await expect.poll(() => part.isReady).toBe(true);
  const [second] = waitingIn(await noted());
  process.kill(second!, "SIGKILL");
  await expect.poll(() => part.isReady).toBe(false);
  process.kill(first.pid, "SIGKILL");
  const running = await launch();
  expect([first.pid, second]).not.toContain(running.pid);
  expect(await noted()).toContain(`${running.pid} serves`);
  part.close();
});

test("after the end of the cluster nobody waits", async () => {
  const { part, noted, launch } = await standby();
  part.close();
  await launch();
  expect(waitingIn(await noted())).toEqual([]);
  expect(part.isReady).toBe(false);
});
