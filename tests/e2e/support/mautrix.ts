import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ensureTestTools } from "../../../src/platforms/local/toolchain/toolchain.ts";

/** A bot made with mautrix in a process of its own, on loopback. What it got stays known when it is stopped and started again. */
export class Bot {
  readonly id = "helpdesk";
  readonly tokens = { as_token: "as-token-of-the-bot", hs_token: "hs-token-of-the-bot" };
  /** Texts of messages, as they came. */
  readonly got: string[] = [];
  port = 0;
  #process: ChildProcess | undefined;

  async start(): Promise<void> {
    const { clientsPython } = await ensureTestTools({ onProgress: () => {} });
    const script = join(import.meta.dirname, "mautrix_bot.py");
    const { as_token, hs_token } = this.tokens;
    const child = spawn(clientsPython, [script, String(this.port), this.id, as_token, hs_token], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#process = child;
    const lines = createInterface({ input: child.stdout });
    const listening = new Promise<number>((resolve, reject) => {
      lines.on("line", (line) => {
        const said = JSON.parse(line) as { port?: number; body?: string };
        if (said.port !== undefined) resolve(said.port);
        if (said.body !== undefined) this.got.push(said.body);
      });
      child.once("exit", () => reject(new Error("the bot ended")));
    });
    this.port = await listening;
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (!child || child.exitCode !== null) return;
    child.stdin?.end();
    await once(child, "exit");
  }
}
