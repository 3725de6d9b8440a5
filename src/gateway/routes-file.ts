import { open, readFile, rename } from "node:fs/promises";
import { z } from "zod";
import { UserError } from "../model/errors.ts";
import type { Route } from "../model/routes.ts";
import { describeIssues } from "../model/validation.ts";

/** Unknown keys are let pass: a newer controller may say more. */
export const RouteSchema = z.object({
  tenant: z.string().min(1).max(63),
  hosts: z.array(z.string().min(1).max(260)).max(100),
  state: z.enum(["serving", "parked", "unavailable"]),
  address: z
    .string()
    .regex(/^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$/, "host:port")
    .refine((address) => URL.canParse(`http://${address}`), "host:port")
    .optional(),
  epoch: z.number(),
  reason: z.string().max(200).optional(),
});

const FileSchema = z.object({ format: z.literal(1), routes: z.array(RouteSchema) });

/** Writes a file so that a reader, or a crash, never meets half of it. Readable by its owner only. */
export async function writeFileAtomically(path: string, text: string): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  const handle = await open(temporary, "w", 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, path);
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

/** Keeps the file up to date: one write at a time, of the newest routes, however often they change. */
export class RoutesWriter {
  readonly #path: string;
  readonly #routes: () => Route[];
  readonly #onError: (error: unknown) => void;
  #dirty = false;
  #writing: Promise<void> | undefined;

  constructor(path: string, routes: () => Route[], onError: (error: unknown) => void) {
    this.#path = path;
    this.#routes = routes;
    this.#onError = onError;
  }

  schedule(): void {
    this.#dirty = true;
    this.#writing ??= this.#write();
  }

  /** Resolves when what was scheduled is on disk, or could not be written. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    // A turn of the loop, so that a burst of updates is one write.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#dirty) {
      this.#dirty = false;
      try {
        await writeFileAtomically(this.#path, JSON.stringify({ format: 1, routes: this.#routes() }));
      } catch (error) {
        this.#onError(error);
      }
    }
    this.#writing = undefined;
  }
}
