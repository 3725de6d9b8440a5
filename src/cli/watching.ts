import { setTimeout as sleep } from "node:timers/promises";
import type { WatchLine } from "../api/watch-routes.ts";
import type { Client } from "./client.ts";
import { CliError, EXIT } from "./errors.ts";
import type { Format } from "./format.ts";
import { note, paint, plain } from "./output.ts";
import { tenantRow, type TenantRow } from "./rows.ts";

/** The controller may be replaced meanwhile: it is back within seconds. */
const AWAY_MS = 60_000;
const AGAIN_MS = 500;

interface Watched {
  query: { name?: string; selector?: string };
  output: Format;
  head: string[];
  cellsOf: (row: TenantRow) => string[];
  write: (text: string) => Promise<void>;
}

/** Prints tenants as they are, then a line for each that changes, until it is interrupted; a connection that breaks is made again. */
export async function watchTenants(client: Client, watched: Watched): Promise<void> {
  if (!["table", "wide", "json"].includes(watched.output))
    throw new CliError(EXIT.usage, "--watch prints a table, or with -o json an object a line");
  const printer = new Printer(watched);
  let lastAnswer = Date.now();
  let isTold = false;
  for (;;) {
    try {
      for await (const text of client.lines("/v1/watch/tenants", { query: watched.query })) {
        lastAnswer = Date.now();
        isTold = false;
        if (text !== "") await printer.take(JSON.parse(text) as WatchLine);
      }
    } catch (error) {
      const isOver = !(error instanceof CliError) || error.exitCode !== EXIT.failed;
      if (isOver || Date.now() - lastAnswer > AWAY_MS) throw error;
    }
    if (!isTold) note("the connection ended, and is made again");
    isTold = true;
    printer.beginAgain();
    await sleep(AGAIN_MS);
  }
}

class Printer {
  readonly #watched: Watched;
  readonly #printed = new Map<string, { text: string; row: TenantRow }>();
  /** Of those that this connection has told of. */
  #seen = new Set<string>();
  /** Until everything has come once: columns are as wide as the widest. */
  #first: TenantRow[] | undefined = [];
  #widths: number[] = [];

  constructor(watched: Watched) {
    this.#watched = watched;
  }

  /** What comes now is everything once more. */
  beginAgain(): void {
    this.#seen = new Set();
  }

  async take(line: WatchLine): Promise<void> {
    if (line.type === "Gone") return this.#gone(line.name);
    if (line.type === "Present") return this.#present(tenantRow(line.tenant));
    for (const name of this.#printed.keys()) if (!this.#seen.has(name)) await this.#gone(name);
    if (!this.#first) return;
    const rows = this.#first;
    this.#first = undefined;
    const { head, cellsOf, output } = this.#watched;
    const cells = [head, ...rows.map(cellsOf)];
    this.#widths = head.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
    if (output !== "json") await this.#write(this.#aligned(head));
    for (const row of rows) await this.#print(row);
  }

  async #present(row: TenantRow): Promise<void> {
    this.#seen.add(row.name);
    const text = JSON.stringify(row);
    if (this.#printed.get(row.name)?.text === text) return;
    this.#printed.set(row.name, { text, row });
    if (this.#first) this.#first.push(row);
    else await this.#print(row);
  }

  async #gone(name: string): Promise<void> {
    const last = this.#printed.get(name);
    if (!last || !this.#printed.delete(name)) return;
    if (this.#first) this.#first = this.#first.filter((row) => row.name !== name);
    else await this.#print({ ...last.row, phase: "Gone", reason: null });
  }

  #print(row: TenantRow): Promise<void> {
    const { output, cellsOf } = this.#watched;
    return this.#write(output === "json" ? JSON.stringify(row) : this.#aligned(cellsOf(row)));
  }

  #aligned(cells: readonly string[]): string {
    const padded = cells.map((cell, column) => {
      const text = plain(cell);
      return paint(text) + " ".repeat(Math.max(0, (this.#widths[column] ?? 0) - text.length));
    });
    return padded.join("   ").trimEnd();
  }

  #write(line: string): Promise<void> {
    return this.#watched.write(`${line}\n`);
  }
}
