import { exponential } from "../../model/backoff.ts";
import { isMoveDue, type DatabaseMove } from "../../model/database-move.ts";
import { messageOf, StartFailure, UserError } from "../../model/errors.ts";
import { storageOf } from "../../model/storage-name.ts";
import type { Tenant } from "../../model/tenant.ts";
import { wantAwake } from "../../model/wake.ts";
import type { CopyProgress } from "../../ports/database-moves.ts";
import { DatabaseTrouble } from "../../ports/databases.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { giveUpMove, noteCopy } from "../start/database-move.ts";

/** A copy that breaks off is begun again; what always breaks it would go on forever. */
const MOST_ATTEMPTS = 5;
/** Each is a copy of its own on the same disks. */
const AT_ONCE = 2;
/** Each is written to the store, and sent to those who watch the tenant. */
const NOTE_MS = 5_000;

const CLEAN_MS = 600_000;
const CLEAN_AGAIN_MS = 30_000;

interface Running {
  id: string;
  storage: string;
  done: Promise<void>;
  cancel: () => void;
  /** For its next attempt. */
  isPausing: boolean;
}

/**
 * Has databases copied whose tenants run meanwhile. When a copy follows closely, the move is due: the tenant's next start makes it (`takeMoved`).
 * A copy is this process's alone: what an earlier controller has left is removed, and begun again.
 */
export class OnlineCopies {
  readonly #context: ControllerContext;
  readonly #running = new Map<string, Running>();
  readonly #wanted = new Set<string>();
  readonly #retryDelay = exponential(10_000, 300_000);
  /** When it is looked next for what copies have left. */
  #cleanAt = 0;
  #isClosed = false;
  #cancel: () => void = () => {};
  #turn: Promise<void> | undefined;
  #unlisten: () => void = () => {};

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  start(): void {
    const { reader, databaseMoves } = this.#context;
    if (!databaseMoves) return;
    for (const { metadata } of reader.values("Tenant")) this.#changed(metadata.name);
    this.#unlisten = reader.onChange((kind, name) => {
      if (kind === "Tenant") this.#changed(name);
    });
    this.#next();
  }

  /** Copies end; what they were asked for is in the store. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    this.#unlisten();
    await this.#turn;
    await Promise.all([...this.#running.keys()].map((name) => this.#end(name)));
  }

  #next(): void {
    if (this.#isClosed) return;
    const { clock, timing } = this.#context;
    this.#cancel = clock.after(timing.copiesEvery * 1000, () => {
      this.#turn = this.#look().finally(() => this.#next());
    });
  }

  #changed(name: string): void {
    const move = this.#moveOf(name);
    const running = this.#running.get(name);
    // Who is about to switch keeps its copy.
    if (move?.online && !isMoveDue(move)) this.#wanted.add(name);
    else this.#wanted.delete(name);
    if (running && move?.id !== running.id) void this.#end(name);
  }

  #moveOf(name: string): DatabaseMove | undefined {
    const tenant = this.#context.reader.get("Tenant", name);
    return tenant?.metadata.deletionTimestamp === undefined ? tenant?.status.databaseMove : undefined;
  }

  async #look(): Promise<void> {
    await this.#clean();
    for (const name of this.#wanted) {
      if (this.#running.has(name)) continue;
      if ([...this.#running.values()].filter(({ isPausing }) => !isPausing).length >= AT_ONCE) return;
      const tenant = this.#context.reader.get("Tenant", name);
      if (tenant?.status.databaseMove) this.#begin(name, storageOf(tenant), tenant.status.databaseMove);
    }
  }

  /** What an earlier controller has left, and what could not be removed because a server was away. */
  async #clean(): Promise<void> {
    const { databaseMoves, reader, store, log, clock } = this.#context;
    if (clock.now() < this.#cleanAt) return;
    this.#cleanAt = clock.now() + CLEAN_MS;
    try {
      await databaseMoves?.cleanCopies(reader.values("Tenant"), async (storage) => {
        const secrets = await store.readSecret(storage);
        if (!secrets) throw new UserError("NotFound", `there are no keys of ${storage}`);
        return secrets;
      });
    } catch (error) {
      this.#cleanAt = clock.now() + CLEAN_AGAIN_MS;
      log.warn({ why: messageOf(error) }, "what copies of databases have left cannot be removed yet; tried again");
    }
  }

  #begin(name: string, storage: string, move: DatabaseMove): void {
    const running: Running = { id: move.id, storage, done: Promise.resolve(), cancel: () => {}, isPausing: false };
    this.#running.set(name, running);
    const { log } = this.#context;
    running.done = this.#copy(name, move, running)
      .catch((error: unknown) => log.error({ tenant: name, err: error }, "a copy of a database failed"))
      .finally(() => {
        if (this.#running.get(name) === running) this.#running.delete(name);
      });
  }

  async #end(name: string): Promise<void> {
    const running = this.#running.get(name);
    if (!running) return;
    running.cancel();
    await this.#leave(running.storage);
    await running.done;
  }

  async #leave(storage: string): Promise<void> {
    const { databaseMoves, log, clock } = this.#context;
    try {
      await databaseMoves?.leave(storage);
    } catch (error) {
      this.#cleanAt = clock.now() + CLEAN_AGAIN_MS;
      log.warn({ storage, why: messageOf(error) }, "what a copy needed in the database cannot be removed yet");
    }
  }

  async #copy(name: string, move: DatabaseMove, running: Running): Promise<void> {
    const { store, databaseMoves } = this.#context;
    const tenant = await store.get("Tenant", name);
    const secrets = tenant && (await store.readSecret(storageOf(tenant)));
    if (!tenant || !secrets || !databaseMoves || tenant.status.databaseMove?.id !== move.id) return;
    const attempts = (tenant.status.databaseMove.online?.attempts ?? 0) + 1;
    // What has it is not ours to stop.
    if (isDedicated(tenant)) return void (await giveUpMove(this.#context, tenant, move, "it is dedicated by now"));
    if (attempts > MOST_ATTEMPTS) {
      const { message = "the controller was restarted" } = tenant.status.databaseMove.online ?? {};
      return void (await giveUpMove(this.#context, tenant, move, `it was begun ${MOST_ATTEMPTS} times: ${message}`));
    }
    try {
      const why = await databaseMoves.whyNotOnline(tenant, secrets, move.to);
      if (why && !why.isPassing) throw new UserError("Conflict", why.words);
      if (why) {
        await noteCopy(this.#context, tenant, move, { step: "Waiting", message: why.words });
        return await this.#pause(this.#retryDelay(3), running);
      }
      await noteCopy(this.#context, tenant, move, { step: "Copying", attempts });
      const onProgress = this.#notes(tenant, move);
      await databaseMoves.follow(tenant, secrets, { to: move.to, onProgress });
      const now = await store.get("Tenant", name);
      if (now && isDedicated(now)) throw new UserError("Conflict", "it is dedicated by now");
      await this.#switch(tenant, move);
    } catch (error) {
      await this.#failed(tenant, move, { error, attempts, running });
    }
  }

  async #failed(
    tenant: Tenant,
    move: DatabaseMove,
    { error, attempts, running }: { error: unknown; attempts: number; running: Running },
  ): Promise<void> {
    if (this.#isClosed || this.#moveOf(tenant.metadata.name)?.id !== move.id) return;
    const why = messageOf(error);
    this.#context.log.warn({ tenant: tenant.metadata.name, attempts, why }, "a copy of a database came to nothing");
    const isRepeated = attempts < MOST_ATTEMPTS && isPassing(error);
    if (!isRepeated) {
      await this.#leave(storageOf(tenant));
      return void (await giveUpMove(this.#context, tenant, move, why));
    }
    await noteCopy(this.#context, tenant, move, { step: "Waiting", attempts, message: `begun again soon: ${why}` });
    await this.#pause(this.#retryDelay(attempts), running);
  }

  async #switch(tenant: Tenant, move: DatabaseMove): Promise<void> {
    const { store, clock } = this.#context;
    const { name } = tenant.metadata;
    const message = `the database of ${name} is copied to ${move.to}, and the tenant restarts with it`;
    await recordEvent(this.#context, { type: "Normal", reason: "DatabaseCopied", object: `Tenant/${name}`, message });
    await noteCopy(this.#context, tenant, move, { step: "Switching" });
    await modify(store, "Tenant", name, ({ status }) => wantAwake(status, "due", clock.now()));
  }

  #notes(tenant: Tenant, move: DatabaseMove): (progress: CopyProgress) => void {
    const { clock, log } = this.#context;
    let noted = -Infinity;
    return (progress) => {
      const online = this.#moveOf(tenant.metadata.name)?.online;
      if (clock.now() - noted < NOTE_MS || !online || online.step === "Switching") return;
      noted = clock.now();
      const { attempts } = online;
      noteCopy(this.#context, tenant, move, { attempts, ...progress }, ["Copying", "Following"]).catch(
        (error: unknown) =>
          log.warn({ tenant: tenant.metadata.name, why: messageOf(error) }, "the progress of a copy cannot be noted"),
      );
    };
  }

  #pause(milliseconds: number, running: Running): Promise<void> {
    running.isPausing = true;
    return new Promise((resolve) => {
      const callOff = this.#context.clock.after(milliseconds, resolve);
      running.cancel = () => {
        callOff();
        resolve();
      };
    });
  }
}

function isDedicated({ spec, status }: Tenant): boolean {
  return spec.dedicated !== undefined || status.dedicated !== undefined || status.transition !== undefined;
}

/** A server that was away, or a tenant that was moved: not a full disk, which the next copy would fill again. */
function isPassing(error: unknown): boolean {
  if (error instanceof StartFailure) return false;
  if (error instanceof DatabaseTrouble) return error.reason !== "DatabaseFull";
  return error instanceof UserError && (error.code === "Unavailable" || error.code === "Timeout");
}
