import { setTimeout as sleep } from "node:timers/promises";
import type { Launcher } from "../../ports/launcher.ts";
import { UserError } from "../../model/errors.ts";
import { ShardRefusal, ShardUnreachable, type PreparerState, type ShardControl } from "../../ports/shard-control.ts";
import type { Store } from "../../ports/store.ts";
import {
  PreparerEventSchema,
  PreparerError,
  type MigrateCommand,
  type PreparerResult,
  type Preparers,
  type WarmPreparer,
  type PreparerDatabase,
} from "../../ports/preparers.ts";

/** Importing Synapse on a busy node. */
const READY_MS = 120_000;
/** A large database's migration takes minutes. */
const COMMAND_MS = 600_000;
/** One call waits this long; asking again renews the preparer's lease. */
const ASK_SECONDS = 5;
/** A shard has few at once; the next one waits for a place. */
const PLACE_MS = 120_000;
const PLACE_POLL_MS = 500;

/** Preparers inside the pods of shards, which have the release: a controller in a pod of its own has no Python. */
export class ShardPreparers implements Preparers {
  readonly #store: Store;
  readonly #launcher: Launcher;

  constructor(store: Store, launcher: Launcher) {
    this.#store = store;
    this.#launcher = launcher;
  }

  async start(release: string, commandMs = COMMAND_MS): Promise<WarmPreparer> {
    const control = await this.#shardOf(release);
    try {
      const preparer = new ShardPreparer(control, await create(control), commandMs);
      await preparer.ready();
      return preparer;
    } catch (error) {
      await control.close();
      throw asUserError(error);
    }
  }

  /** A shard of the release that answers; the one with the least to do. */
  async #shardOf(release: string): Promise<ShardControl> {
    const ready = (await this.#store.list("Shard")).filter(
      ({ spec, status }) => spec.release === release && status.phase === "Ready" && status.address !== undefined,
    );
    const [best] = ready.toSorted((a, b) => (a.status.load ?? 0) - (b.status.load ?? 0));
    if (!best?.status.address)
      throw new UserError(
        "Unavailable",
        `no shard of Synapse ${release} answers, which would have to prepare the database`,
      );
    return this.#launcher.client(best.metadata.name, best.status.address);
  }
}

async function create(control: ShardControl): Promise<string> {
  for (const deadline = Date.now() + PLACE_MS; ; await sleep(PLACE_POLL_MS)) {
    try {
      return await control.preparers.create();
    } catch (error) {
      const full = error instanceof ShardRefusal && error.code === "TooManyPreparers";
      if (!full || Date.now() > deadline) throw error;
    }
  }
}

class ShardPreparer implements WarmPreparer {
  readonly #control: ShardControl;
  readonly #id: string;
  readonly #commandMs: number;
  #closed = false;
  #renewing: NodeJS.Timeout;

  constructor(control: ShardControl, id: string, commandMs: number) {
    this.#control = control;
    this.#id = id;
    this.#commandMs = commandMs;
    // A preparer that waits, warmed up, for its move is asked now and then, so that its shard keeps it.
    this.#renewing = setInterval(() => void control.preparers.state(id, "ended", 0).catch(() => {}), 10_000);
  }

  async ready(): Promise<void> {
    try {
      const event = await this.#until("starting", READY_MS, "to get ready");
      if (event.event !== "ready") throw new UserError("Environment", `the preparer began with ${event.event}`);
    } catch (error) {
      await this.#end();
      throw error;
    }
  }

  template(database: PreparerDatabase): Promise<PreparerResult> {
    return this.#run({ command: "template", database });
  }

  migrate(command: MigrateCommand): Promise<PreparerResult> {
    return this.#run({ command: "migrate", ...command });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#end();
    await this.#control.close();
  }

  async #end(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#renewing);
    // Not reached: its lease ends it.
    await this.#control.preparers.end(this.#id).catch(() => {});
  }

  async #run(command: object): Promise<PreparerResult> {
    try {
      await this.#control.preparers.command(this.#id, command);
      const event = await this.#until("working", this.#commandMs, "for its work");
      if (event.event !== "done") throw new UserError("Environment", `the preparer answered with ${event.event}`);
      const { seconds, from, to } = event;
      return { seconds, from, to };
    } catch (error) {
      throw asUserError(error);
    }
  }

  /** Waits until it is in another state. @returns what it said @throws PreparerError for a failure that it reports; UserError */
  async #until(not: PreparerState["state"], withinMs: number, what: string) {
    for (const deadline = Date.now() + withinMs; ;) {
      const { state, event } = await this.#control.preparers.state(this.#id, not, ASK_SECONDS);
      const said = PreparerEventSchema.safeParse(event);
      if (said.success && said.data.event === "error") throw new PreparerError(said.data.code, said.data.message);
      if (state === "ended") throw new UserError("Environment", "the preparer ended before it was done");
      if (state !== not) {
        if (said.success) return said.data;
        throw new UserError("Environment", "the preparer said what is none of its events");
      }
      if (Date.now() > deadline)
        throw new UserError("Timeout", `the preparer took longer than ${Math.round(withinMs / 1000)} s ${what}`);
    }
  }
}

function asUserError(error: unknown): unknown {
  if (error instanceof ShardUnreachable || error instanceof ShardRefusal)
    return new UserError("Unavailable", `the database cannot be prepared: ${error.message}`, { cause: error });
  return error;
}
