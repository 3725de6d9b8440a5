import { open, readFile, rename, rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { UserError } from "../model/errors.ts";
import { AdminContactSchema } from "../model/admin-contact.ts";
import { MOST_ANSWER_BYTES } from "../model/public-answers.ts";
import { isAuthenticationAddress, isRouteAddress, type Route } from "../model/routes.ts";
import { describeIssues } from "../model/validation.ts";

const address = z.string().refine(isRouteAddress, "host:port");

/** Unknown keys are let pass: a newer controller may say more. */
export const RouteSchema = z.object({
  tenant: z.string().min(1).max(63),
  formerly: z.string().min(1).max(63).optional(),
  hosts: z.array(z.string().min(1).max(260)).max(100),
  state: z.enum(["serving", "parked", "unavailable", "asleep"]),
  address: address.optional(),
  draining: address.optional(),
  dedicated: z.literal(true).optional(),
  secret: z
    .string()
    .regex(/^[!-~]{1,200}$/, "1 to 200 visible ASCII characters")
    .optional(),
  share: z.number().gt(0).max(1).optional(),
  places: z.int().min(1).max(10_000).optional(),
  epoch: z.number(),
  position: z.string().max(1000).optional(),
  revision: z.string().max(200).optional(),
  delegate: address.optional(),
  authentication: z.string().refine(isAuthenticationAddress, "host:port or https://host:port").optional(),
  said: z.record(z.string().max(100), z.string().max(MOST_ANSWER_BYTES)).optional(),
  contact: AdminContactSchema.optional(),
  adminAccess: z.object({ allowedNetworks: z.array(z.string().max(60)).max(100) }).optional(),
  reason: z.string().max(200).optional(),
});

/** Made into text at once: a fraction of a millisecond, so that requests are not kept waiting. */
const ROUTES_AT_ONCE = 200;
/** Rest after a write, by the time it took: with very many tenants, and updates all the time, at most a tenth of the time goes into the file. */
const REST = 9;
const MAX_REST_MS = 10_000;

const FileSchema = z.object({ format: z.literal(1), routes: z.array(RouteSchema) });

/** Writes a file so that a reader, or a crash, never meets half of it. Readable by its owner only. */
export async function writeFileAtomically(path: string, text: string | Iterable<string>): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const handle = await open(temporary, "w", 0o600);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    // On a disk that is full, the half is in others' way.
    await rm(temporary, { force: true }).catch(() => {});
    throw error;
  }
}

/**
 * The routes of the last run; undefined when there is no file.
 * @throws UserError Environment when it cannot be read or is not what this gateway wrote
 */
export async function readRoutesFile(path: string): Promise<Route[] | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new UserError("Environment", `cannot read the routes file ${path}: ${(error as Error).message}`);
  }
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw new UserError("Environment", `the routes file ${path} is no JSON: ${(error as Error).message}`);
  }
  const result = FileSchema.safeParse(document, { reportInput: true });
  if (result.success) return result.data.routes;
  throw new UserError("Environment", `the routes file ${path}: ${describeIssues(result.error).slice(0, 3).join("; ")}`);
}

/** The file's text, piece by piece: of 100,000 routes in one piece it would stall the gateway for 150 ms, at each step of each move. */
export function* textOf(routes: readonly Route[]): Generator<string> {
  yield '{"format":1,"routes":[';
  for (let from = 0; from < routes.length; from += ROUTES_AT_ONCE) {
    const piece = JSON.stringify(routes.slice(from, from + ROUTES_AT_ONCE)).slice(1, -1);
    yield from === 0 ? piece : `,${piece}`;
  }
  yield "]}";
}

/** Keeps the file up to date: one write at a time, of the newest routes, however often they change. */
export class RoutesWriter {
  readonly #path: string;
  readonly #routes: () => Route[];
  readonly #onError: (error: unknown) => void;
  #dirty = false;
  #writing: Promise<void> | undefined;
  #endRest = new AbortController();

  constructor(path: string, routes: () => Route[], onError: (error: unknown) => void) {
    this.#path = path;
    this.#routes = routes;
    this.#onError = onError;
  }

  schedule(): void {
    this.#dirty = true;
    this.#writing ??= this.#write();
  }

  /** For the end: resolves when what was scheduled is on disk, or could not be written. */
  async flush(): Promise<void> {
    this.#endRest.abort();
    await this.#writing;
  }

  async #write(): Promise<void> {
    // A turn of the loop, so that a burst of updates is one write.
    await new Promise((resolve) => setImmediate(resolve));
    let failed = false;
    while (this.#dirty) {
      this.#dirty = false;
      const started = performance.now();
      try {
        await writeFileAtomically(this.#path, textOf(this.#routes()));
        failed = false;
      } catch (error) {
        // Once, not every few seconds for as long as the disk is full.
        if (!failed) this.#onError(error);
        failed = true;
        this.#dirty = !this.#endRest.signal.aborted;
      }
      const restMs = failed ? MAX_REST_MS : Math.min((performance.now() - started) * REST, MAX_REST_MS);
      await sleep(restMs, undefined, { signal: this.#endRest.signal }).catch(() => {});
    }
    this.#writing = undefined;
  }
}
