import { exponential } from "../../model/backoff.ts";
import { isExchanging, isMoveDue, type DatabaseMove } from "../../model/database-move.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import { storageOf } from "../../model/storage-name.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import { wantAwake } from "../../model/wake.ts";
import { CopyPostponed, type CopyProgress } from "../../ports/database-moves.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import { giveUpCopy, isPassing, leaveCopy, noteCopy } from "../start/database-move.ts";

/** A copy that breaks off is begun again; what always breaks it would go on forever. */
const MOST_ATTEMPTS = 5;
/** Each is a copy of its own on the same disks. */
const AT_ONCE = 2;
/** Each is written to the store, and sent to those who watch the tenant. */
const NOTE_MS = 5_000;

const BEFORE_SWITCH = ["Waiting", "Copying", "Following"] as const;
const CLEAN_MS = 600_000;
const CLEAN_AGAIN_MS = 30_000;

/** A tenant that is to be restarted with its copy and is not in this time cannot be started, or is not let go: meanwhile a server keeps its log. */
const START_MS = 600_000;

interface Running {
  id: string;
  storage: string;
  done: Promise<void>;
  /** Once aborted it goes no further, wherever it is. */
  ending: AbortController;
  /** For its next attempt, or for the tenant's start: others are copied meanwhile. */
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
  readonly #toTakeUp = new Set<string>();
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
    for (const { metadata, status } of reader.values("Tenant")) {
      this.#changed(metadata.name);
      if (status.databaseMove?.online?.step === "Switching") this.#toTakeUp.add(metadata.name);
    }
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
    await this.#takeUp();
    for (const name of this.#wanted) {
      if (this.#running.has(name)) continue;
      if ([...this.#running.values()].filter(({ isPausing }) => !isPausing).length >= AT_ONCE) return;
      const tenant = this.#context.reader.get("Tenant", name);
      if (tenant?.status.databaseMove) this.#begin(name, storageOf(tenant), tenant.status.databaseMove);
    }
  }

  /** What an earlier controller was about to switch to is not there any more: its tenants need no restart. */
  async #takeUp(): Promise<void> {
    for (const name of this.#toTakeUp) {
      this.#toTakeUp.delete(name);
      const tenant = this.#context.reader.get("Tenant", name);
      const move = tenant?.status.databaseMove;
      if (!tenant || !move || this.#running.has(name)) continue;
      const message = "begun again: the controller was restarted";
      await noteCopy(this.#context, tenant, move, { step: "Waiting", message }, ["Switching"]).catch(
        (error: unknown) => {
          this.#toTakeUp.add(name);
          this.#context.log.warn({ tenant: name, why: messageOf(error) }, "what became of a copy cannot be noted yet");
        },
      );
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
    const ending = new AbortController();
    const running: Running = { id: move.id, storage, done: Promise.resolve(), ending, isPausing: false };
    this.#running.set(name, running);
    const { log } = this.#context;
    running.done = this.#copy(name, move, running)
      .catch((error: unknown) => log.error({ tenant: name, err: error }, "a copy of a database failed"))
      // Nothing follows a database that nobody waits for, whatever became of the move.
      .then(() => this.#leave(storage))
      .finally(() => {
        if (this.#running.get(name) === running) this.#running.delete(name);
      });
  }

  async #end(name: string): Promise<void> {
    const running = this.#running.get(name);
    if (!running) return;
    running.ending.abort();
    await this.#leave(running.storage);
    await running.done;
  }

  async #leave(storage: string): Promise<void> {
    if (!(await leaveCopy(this.#context, storage))) this.#cleanAt = this.#context.clock.now() + CLEAN_AGAIN_MS;
  }

  async #copy(name: string, move: DatabaseMove, running: Running): Promise<void> {
    const { store, databaseMoves } = this.#context;
    const { signal } = running.ending;
    const tenant = await store.get("Tenant", name);
    const secrets = tenant && (await store.readSecret(storageOf(tenant)));
    if (signal.aborted || !tenant || !secrets || !databaseMoves || tenant.status.databaseMove?.id !== move.id) return;
    const attempts = (tenant.status.databaseMove.online?.attempts ?? 0) + 1;
    // What has it is not ours to stop.
    if (isDedicated(tenant)) return giveUpCopy(this.#context, tenant, move, "it is dedicated by now");
    if (attempts > MOST_ATTEMPTS) {
      const { message = "the controller was restarted" } = tenant.status.databaseMove.online ?? {};
      return giveUpCopy(this.#context, tenant, move, `it was begun ${MOST_ATTEMPTS} times: ${message}`);
    }
    try {
      const waitsFor = await this.#waitsFor(tenant, secrets, move);
      signal.throwIfAborted();
      if (waitsFor !== undefined) {
        await noteCopy(this.#context, tenant, move, { step: "Waiting", message: waitsFor }, BEFORE_SWITCH);
        return await this.#pause(this.#retryDelay(3), running);
      }
      await noteCopy(this.#context, tenant, move, { step: "Copying", attempts }, BEFORE_SWITCH);
      const onProgress = this.#notes(tenant, move);
      await databaseMoves.follow(tenant, secrets, { to: move.to, onProgress, signal });
      const now = await store.get("Tenant", name);
      if (now && isDedicated(now)) throw new UserError("Conflict", "it is dedicated by now");
      signal.throwIfAborted();
      await this.#untilFree(tenant, move, running);
      await this.#switch(tenant, move);
    } catch (error) {
      return await this.#failed(tenant, move, { error, attempts, running });
    }
    await this.#untilTaken(tenant, move, running);
  }

  /** @returns undefined where it can be begun @throws UserError where it cannot be at all */
  async #waitsFor(tenant: Tenant, secrets: TenantSecretData, { to }: DatabaseMove): Promise<string | undefined> {
    const { databaseMoves, workFor } = this.#context;
    const job = workFor?.(tenant.metadata.name);
    // What reads its tables for long would make the tenant's requests wait behind what is changed in them.
    if (job !== undefined) return busyWords(job);
    const why = await databaseMoves?.whyNotOnline(tenant, secrets, to);
    if (why && !why.isPassing) throw new UserError("Conflict", why.words);
    return why?.words;
  }

  async #failed(
    tenant: Tenant,
    move: DatabaseMove,
    { error, attempts, running }: { error: unknown; attempts: number; running: Running },
  ): Promise<void> {
    if (this.#isClosed || running.ending.signal.aborted || this.#moveOf(tenant.metadata.name)?.id !== move.id) return;
    const why = messageOf(error);
    this.#context.log.warn({ tenant: tenant.metadata.name, attempts, why }, "a copy of a database came to nothing");
    const isPostponed = error instanceof CopyPostponed;
    if (!isPostponed && (attempts >= MOST_ATTEMPTS || !isPassing(error))) {
      await this.#leave(storageOf(tenant));
      return giveUpCopy(this.#context, tenant, move, why);
    }
    const counted = isPostponed ? attempts - 1 : attempts;
    const message = `begun again soon: ${why}`;
    await noteCopy(this.#context, tenant, move, { step: "Waiting", attempts: counted, message }, BEFORE_SWITCH);
    await this.#pause(this.#retryDelay(attempts), running);
  }

  /** A job would be cut off by the switch, and look for the database where it was. */
  async #untilFree(tenant: Tenant, move: DatabaseMove, running: Running): Promise<void> {
    const { workFor, timing } = this.#context;
    const { name } = tenant.metadata;
    for (let isNoted = false; ; isNoted = true) {
      const job = workFor?.(name);
      if (job === undefined) return;
      if (!isNoted)
        await noteCopy(this.#context, tenant, move, { step: "Following", message: busyWords(job) }, BEFORE_SWITCH);
      await this.#pause(timing.copiesEvery * 1000, running);
      running.ending.signal.throwIfAborted();
    }
  }

  /** The copy follows on until the tenant's start has taken it, or none has come for long. */
  async #untilTaken(tenant: Tenant, move: DatabaseMove, running: Running): Promise<void> {
    const { clock, timing, log } = this.#context;
    const { name } = tenant.metadata;
    const deadline = clock.now() + START_MS;
    for (;;) {
      await this.#pause(timing.copiesEvery * 1000, running);
      if (running.ending.signal.aborted) return;
      try {
        if (await this.#isOver(tenant, move, clock.now() > deadline)) return;
      } catch (error) {
        log.warn({ tenant: name, why: messageOf(error) }, "what became of a copy cannot be read yet");
      }
    }
  }

  /** @param isLate nobody has come for it */
  async #isOver(tenant: Tenant, move: DatabaseMove, isLate: boolean): Promise<boolean> {
    const { store } = this.#context;
    const now = (await store.get("Tenant", tenant.metadata.name))?.status.databaseMove;
    if (now?.id !== move.id || !isMoveDue(now)) return true;
    if (!isLate || isExchanging(now)) return false;
    const message = `begun again: the tenant was not started in ${START_MS / 60_000} minutes`;
    const { status } = await noteCopy(this.#context, tenant, move, { step: "Waiting", message }, ["Switching"]);
    return status.databaseMove?.online?.step === "Waiting";
  }

  async #switch(tenant: Tenant, move: DatabaseMove): Promise<void> {
    const { store, clock } = this.#context;
    const { name } = tenant.metadata;
    const message = `the database of ${name} is copied to ${move.to}, and the tenant restarts with it`;
    await recordEvent(this.#context, { type: "Normal", reason: "DatabaseCopied", object: `Tenant/${name}`, message });
    await noteCopy(this.#context, tenant, move, { step: "Switching" }, BEFORE_SWITCH);
    await modify(store, "Tenant", name, ({ status }) => wantAwake(status, "due", clock.now()));
  }

  #notes(tenant: Tenant, move: DatabaseMove): (progress: CopyProgress) => void {
    const { clock, log, workFor } = this.#context;
    let noted = -Infinity;
    return (progress) => {
      const online = this.#moveOf(tenant.metadata.name)?.online;
      if (clock.now() - noted < NOTE_MS || !online || isMoveDue(this.#moveOf(tenant.metadata.name))) return;
      noted = clock.now();
      const { attempts } = online;
      const job = progress.step === "Following" ? workFor?.(tenant.metadata.name) : undefined;
      const message = job === undefined ? {} : { message: busyWords(job) };
      noteCopy(this.#context, tenant, move, { attempts, ...progress, ...message }, ["Copying", "Following"]).catch(
        (error: unknown) =>
          log.warn({ tenant: tenant.metadata.name, why: messageOf(error) }, "the progress of a copy cannot be noted"),
      );
    };
  }

  #pause(milliseconds: number, running: Running): Promise<void> {
    running.isPausing = true;
    const { signal } = running.ending;
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const callOff = this.#context.clock.after(milliseconds, () => {
        signal.removeEventListener("abort", stop);
        resolve();
      });
      const stop = () => {
        callOff();
        resolve();
      };
      signal.addEventListener("abort", stop, { once: true });
    });
  }
}

function busyWords(job: string): string {
  return `a job (${job}) has the database`;
}

function isDedicated({ spec, status }: Tenant): boolean {
  return spec.dedicated !== undefined || status.dedicated !== undefined || status.transition !== undefined;
}
