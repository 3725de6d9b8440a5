import { describe, expect, test } from "vitest";
import { Preparer, type PreparerOptions } from "../../../../src/platforms/local/launcher/preparer.ts";

const READY = `console.log(JSON.stringify({event:"ready",release:"1.163.2",schemaVersion:93,schemaCompatVersion:91}));`;
const DATABASE = { host: "127.0.0.1", port: 1, user: "u", password: "the-secret", dbname: "d" };

/** A process that speaks the preparer's protocol as the script says; `answer` is its reaction to each command. */
function speaking(script: string, over: Partial<PreparerOptions> = {}): PreparerOptions {
  return { python: process.execPath, args: ["-e", script], readyMs: 10_000, commandMs: 10_000, ...over };
}
const answering = (answer: string) =>
  `${READY}require("node:readline").createInterface(process.stdin).on("line", (line) => { const c = JSON.parse(line); ${answer} });`;

describe("the preparer's client", () => {
  test("understands what a preparer says", async () => {
    const preparer = await Preparer.start(
      speaking(answering(`console.log(JSON.stringify({event:"done",seconds:1.5,from:null,to:c.database.port}))`)),
    );
    try {
      expect(preparer.facts).toEqual({ release: "1.163.2", schemaVersion: 93, schemaCompatVersion: 91 });
      expect(await preparer.template(DATABASE)).toEqual({ seconds: 1.5, from: null, to: 1 });
      expect(await preparer.template({ ...DATABASE, port: 2 })).toMatchObject({ to: 2 });
    } finally {
      await preparer.close();
      await preparer.close();
    }
  });

  test("keeps the reason of a failure", async () => {
    const preparer = await Preparer.start(
      speaking(
        answering(
          `console.log(JSON.stringify({event:"error",code:"DatabaseMissing",message:"there is no database d"}))`,
        ),
      ),
    );
    await expect(preparer.template(DATABASE)).rejects.toMatchObject({ name: "PreparerError", code: "DatabaseMissing" });
    await preparer.close();
  });

  test.each([
    [
      "ends before it is ready",
      `console.error("No module named multi_synapse"); process.exit(3)`,
      "Environment",
      "No module named",
    ],
    ["writes something else", `console.log("hello"); setInterval(() => {}, 1000)`, "Environment", "none of its events"],
    ["never gets ready", `setInterval(() => {}, 1000)`, "Timeout", "to get ready"],
  ])("does not wait for a process that %s", async (_what, script, code, words) => {
    const failure = Preparer.start(speaking(script, { readyMs: code === "Timeout" ? 300 : 10_000 }));
    await expect(failure).rejects.toMatchObject({ code, message: expect.stringContaining(words) });
  });

  test("says that there is no such Python", async () => {
    const failure = Preparer.start(speaking("", { python: "/nonexistent/python" }));
    await expect(failure).rejects.toMatchObject({ code: "Environment" });
  });

  test("bounds the wait for a command, and keeps secrets out of the error", async () => {
    const preparer = await Preparer.start(speaking(answering(`console.error(line)`), { commandMs: 300 }));
    await expect(preparer.template(DATABASE)).rejects.toMatchObject({ code: "Timeout" });
    await preparer.close();
    const dying = await Preparer.start(
      speaking(answering(`console.error(line); process.exitCode = 1; process.stdin.destroy()`)),
    );
    const failure = await dying.template(DATABASE).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "Environment" });
    expect(String(failure)).not.toContain("the-secret");
    await dying.close();
  });

  test("ends a process that was called off", async () => {
    const abort = new AbortController();
    const preparer = await Preparer.start(speaking(answering(""), { signal: abort.signal }));
    const work = preparer.template(DATABASE);
    abort.abort();
    await expect(work).rejects.toMatchObject({ code: "Unavailable" });
    await preparer.close();
  });
});
