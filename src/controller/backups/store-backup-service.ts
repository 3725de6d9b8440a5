import {
  backupAt,
  retentionFor,
  type BackupManifest,
  type BackupsConfig,
  type BackupTargetConfig,
  type Job,
} from "../../model/backup.ts";
import { timeText } from "../../model/clock.ts";
import { OWN_SERVER } from "../../model/database-servers.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import { tenantNameProblem } from "../../model/names.ts";
import type { Tenant } from "../../model/tenant.ts";
import { FORMER, type BackupMeans, type DatabaseCopies } from "../../ports/backups.ts";
import type { PointInTimeMeans } from "../../ports/point-in-time.ts";
import { recordEvent, type ControllerContext } from "../context.ts";
import {
  noJob,
  type BackupEntry,
  type BackupService,
  type PointInTimeState,
  type RestoreRequest,
} from "../service/backup-service.ts";
import type { ClusterService } from "../service/cluster-service.ts";
import { Turns } from "../turns.ts";
import { asItRuns, bringsDatabase, type StartConfig } from "../start/configs.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import type { OwnRestores } from "../context.ts";
import { AskedBackups } from "./asked-backups.ts";
import { backUp, prune, verify, type Work } from "./back-up.ts";
import { Catalogue, nameOf } from "./catalogue.ts";
import { knownStorageOf, ownerOf } from "../tenants/storage-names.ts";
import { storageOf } from "../../model/storage-name.ts";
import { Jobs, type JobContext } from "./jobs.ts";
import {
  exchangeNow,
  readBackup,
  restoreGone,
  restoreInPlace,
  whyNotRestored,
  type DatabaseSource,
} from "./restore.ts";
import { LogArchiver } from "./log-archiver.ts";
import { reachOf, readMoment, refuseEarlierTenant, restoreToTime } from "./restore-to-time.ts";
import { BackupSchedule, Missed } from "./schedule.ts";
import { mebibytes } from "../../model/bytes.ts";

const LOOK_EVERY_MS = 30_000;

export interface BackupSettings {
  /** As it is now; undefined where there is none. */
  config(): { config: BackupsConfig; means: BackupMeans } | undefined;
  /** Of our own database server; absent where it is somebody else's. */
  pointInTime?: PointInTimeMeans;
  /** With another target than the cluster's own. @throws UserError */
  meansAt(target: BackupTargetConfig): BackupMeans;
}

/** Backups and restores as people ask for them, and as the schedule has it. */
export class StoreBackupService implements BackupService {
  readonly #context: ControllerContext;
  readonly #service: ClusterService;
  readonly #settings: BackupSettings;
  /** Those of others, too, who do long work for tenants. */
  readonly work: Jobs;
  readonly #schedule = new BackupSchedule();
  readonly #missed = new Missed();
  readonly #archiver: LogArchiver | undefined;
  readonly #aside = new Turns();
  readonly #asked: AskedBackups;
  /** Jobs that tenant admins asked for, and nobody else. */
  readonly #ofTenantAdmins = new Set<string>();
  /** Why the newest backups have not all media, by what tenants' data are named by. */
  readonly #withoutMedia = new Map<string, string>();
  #cancel: () => void = () => {};
  #look: Promise<void> | undefined;
  #isClosed = false;

  constructor(context: ControllerContext, service: ClusterService, settings: BackupSettings) {
    this.#context = context;
    this.#asked = new AskedBackups(context);
    this.#service = service;
    this.#settings = settings;
    this.work = new Jobs(
      context.clock,
      (job, error) => context.log.error({ tenant: job.tenant, kind: job.kind, err: error }, "a job failed"),
      (tenant) => {
        const to = context.reader.get("Tenant", tenant)?.status.rename?.to;
        return to === undefined ? undefined : `tenant ${tenant} is being renamed to ${to}; try again after it`;
      },
    );
    const archived = () => {
      const now = settings.config();
      const config = now?.config.pointInTime;
      return now && config && { config, target: now.means.target };
    };
    this.#archiver = settings.pointInTime && new LogArchiver(context, { config: archived }, settings.pointInTime.log);
  }

  /** Begins to keep the schedule. */
  async start(): Promise<void> {
    const now = this.#settings.config();
    const cleaned = Promise.all([now?.means.copies.clean(), this.#settings.pointInTime?.recoveries.clean()]);
    await cleaned.catch((error: unknown) => {
      this.#context.log.warn({ why: messageOf(error) }, "what interrupted work left cannot be removed yet");
    });
    this.#archiver?.start();
    await this.#goOn();
    this.#again();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    await Promise.all([this.work.close(), this.#archiver?.close()]);
    await this.#look;
  }

  problems(): string[] {
    const missed = this.#missed.problem();
    return [
      ...(missed === undefined ? [] : [missed]),
      ...this.#schedule.problems((storage) => this.#context.reader.withStorage(storage)?.metadata.name),
      ...this.#mediaProblems(),
      ...(this.#archiver?.problems() ?? []),
    ];
  }

  pointInTime(): Promise<PointInTimeState> {
    return this.#archives().archiver.state();
  }

  async backUp(name: string, { byTenantAdmin = false } = {}): Promise<Job> {
    this.#configured();
    await this.#service.getTenant(name);
    const job = this.#begin(name, { byTenantAdmin });
    await this.#asked.note(job, { byTenantAdmin: this.#ofTenantAdmins.has(job.id) });
    return job;
  }

  /** One that is under way is joined. @param id of one that an earlier controller had begun */
  #begin(name: string, { byTenantAdmin = false, id }: { byTenantAdmin?: boolean; id?: string } = {}): Job {
    const { config, means } = this.#configured();
    const isJoined = this.work.underWay(name) !== undefined;
    const job = this.work.add("Backup", name, (context) => this.#make(name, config, means, context), id);
    // Anybody else who asks for it wants it kept like any other.
    if (!byTenantAdmin) this.#ofTenantAdmins.delete(job.id);
    else if (!isJoined) this.#ofTenantAdmins.add(job.id);
    return job;
  }

  async #make(name: string, config: BackupsConfig, means: BackupMeans, context: JobContext): Promise<string> {
    const { job, signal, isStopping } = context;
    try {
      await this.#asked.begin(job);
      const manifest = await this.#backUp(name, config, means, context);
      if (manifest.by === undefined) this.#schedule.learn(manifest.tenant, Date.parse(manifest.takenAt));
      else this.#schedule.succeeded(manifest.tenant);
      const { database, media, id } = manifest;
      const words = `backup ${id}: database ${mebibytes(database.bytes)}, ${media.files} media files (${media.newFiles} new, ${mebibytes(media.newBytes)})`;
      if (media.leftOut === undefined) return words;
      const left = `media are left out: ${media.leftOut}`;
      await this.#say(name, "Warning", "MediaNotBackedUp", `backup ${id} of ${name} is made, but its ${left}`);
      return `${words}; ${left}`;
    } catch (error) {
      // That it took too long says more than what it was at.
      const why: unknown = signal.reason instanceof UserError ? signal.reason : error;
      if (!isStopping()) await this.#tellFailure(name, messageOf(why));
      throw error;
    } finally {
      // What a stop interrupts goes on afterwards.
      if (!isStopping()) this.#ofTenantAdmins.delete(job.id);
      await (isStopping() ? this.#asked.stopped(job) : this.#asked.done(job)).catch((error: unknown) =>
        this.#context.log.warn(
          { tenant: name, backup: job.id, why: messageOf(error) },
          "the note of a backup that is done, or goes on later, cannot be changed yet",
        ),
      );
    }
  }

  async list(tenant: string): Promise<BackupEntry[]> {
    const { means } = this.#configured();
    refuseName(tenant);
    const catalogue = new Catalogue(means.target);
    const backups = await catalogue.all(await this.#storageOf(catalogue, tenant));
    return Promise.all(backups.toReversed().map((backup) => this.#entry(catalogue, backup, tenant)));
  }

  async newest(): Promise<(BackupEntry & { count: number })[]> {
    const { means } = this.#configured();
    const catalogue = new Catalogue(means.target);
    const entries: (BackupEntry & { count: number })[] = [];
    for (const [tenant, ids] of [...(await catalogue.ids())].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
      const backup = await catalogue.manifest(tenant, ids.at(-1) ?? "").catch((error: unknown) => {
        this.#context.log.warn({ tenant, why: messageOf(error) }, "a backup in the catalogue cannot be read");
        return undefined;
      });
      if (!backup) continue;
      const name = (await ownerOf(this.#context, tenant)) ?? nameOf(backup);
      entries.push({ ...(await this.#entry(catalogue, backup, name)), count: ids.length });
    }
    return entries.toSorted((a, b) => (a.backup.tenant < b.backup.tenant ? -1 : 1));
  }

  async verify(tenant: string, id?: string): Promise<Job> {
    const { means } = this.#configured();
    const manifest = await this.#choose(means, tenant, id === undefined ? {} : { backup: id });
    return this.work.add("Verify", tenant, async ({ job, ...work }) => {
      job.backup = manifest.id;
      const { ok, problems } = await verify(means, manifest, this.#work(work));
      if (ok) return `backup ${manifest.id} of ${tenant} can be restored`;
      await this.#say(
        tenant,
        "Warning",
        "BackupDamaged",
        `backup ${manifest.id} of ${tenant} is damaged: ${problems.join("; ")}`,
      );
      throw new UserError("InvalidInput", `backup ${manifest.id} of ${tenant} is damaged: ${problems.join("; ")}`);
    });
  }

  async restore(name: string, request: RestoreRequest): Promise<Job> {
    const moment = await this.#momentOf(name, request);
    const there = moment === undefined ? undefined : await this.#context.store.get("Tenant", name);
    if (moment !== undefined && there) return this.#restoreToTime(there, moment);
    const means = request.from ? this.#settings.meansAt(request.from) : this.#configured().means;
    const manifest = await this.#choose(means, name, request);
    const as = request.as ?? name;
    refuseName(as);
    const tenant = await this.#context.store.get("Tenant", as);
    const refusal = tenant && whyNotRestored(tenant);
    if (refusal !== undefined) throw new UserError("Conflict", refusal);
    if (tenant && tenant.spec.serverName !== manifest.serverName)
      throw new UserError(
        "Conflict",
        `tenant ${as} is ${tenant.spec.serverName}, and the backup is of ${manifest.serverName}: give another name`,
      );
    if (tenant && request.from && bringsDatabase(await this.#asItRuns(tenant)))
      throw new UserError(
        "Conflict",
        `tenant ${as} brings its database along, into which backups of the cluster's own target go: copy the backup there`,
      );
    const { identity } = request;
    if (!tenant && identity === undefined)
      throw new UserError(
        "InvalidInput",
        `tenant ${as} is gone, and its keys with it: give --identity, the private key that opens them`,
      );
    const parts = { context: this.#context, means, service: this.#service };
    return this.work.add("Restore", as, async ({ job, ...rest }) => {
      job.backup = manifest.id;
      const work = this.#work(rest);
      const message = tenant
        ? await restoreInPlace(parts, tenant, manifest, work)
        : await restoreGone(parts, as, manifest, identity ?? "", work);
      await this.#say(as, "Normal", "Restored", message);
      return message;
    });
  }

  /** Where the database of a backup, or of a moment, is read from; the tenant may be gone. */
  async databaseOf(name: string, request: Pick<RestoreRequest, "at" | "backup" | "from">): Promise<DatabaseSource> {
    const at = await this.#momentOf(name, request);
    if (at !== undefined) {
      refuseName(name);
      const { archiver, recoveries, means } = this.#archives();
      await reachOf(archiver, at, this.#context.clock.wall());
      const parts = { context: this.#context, archiver, recoveries, copies: means.copies };
      const storage = await this.#storageOf(new Catalogue(means.target), name);
      const read: DatabaseSource["read"] = (use, work) =>
        this.#aside.run(() => readMoment(parts, storage, at, work, use));
      return { words: `the moment ${timeText(at)}`, read };
    }
    const means = request.from ? this.#settings.meansAt(request.from) : this.#configured().means;
    const manifest = await this.#choose(means, name, request);
    return { words: `backup ${manifest.id}`, read: (use, work) => readBackup(means, manifest, work, use) };
  }

  /** The moment that a request is for, rather than a backup; milliseconds. */
  async #momentOf(name: string, { at, backup, from, as }: RestoreRequest): Promise<number | undefined> {
    const isKept = this.#archiver !== undefined && this.#settings.config()?.config.pointInTime !== undefined;
    const isMoment = at !== undefined && backup === undefined && from === undefined && as === undefined;
    return isKept && isMoment && (await this.#isOnOwnServer(name)) ? Date.parse(at) : undefined;
  }

  /** The log is kept of that server alone. */
  async #isOnOwnServer(name: string): Promise<boolean> {
    const { store, deletions } = this.#context;
    refuseName(name);
    const tenant = await store.get("Tenant", name);
    if (tenant && bringsDatabase(tenant.spec)) return false;
    const server = tenant ? tenant.status.databaseServer : (await deletions?.records.get(name))?.databaseServer;
    return (server ?? OWN_SERVER) === OWN_SERVER;
  }

  async #restoreToTime(tenant: Tenant, at: number): Promise<Job> {
    const { name } = tenant.metadata;
    const refusal = whyNotRestored(tenant);
    if (refusal !== undefined) throw new UserError("Conflict", refusal);
    const { archiver, recoveries, means } = this.#archives();
    await reachOf(archiver, at, this.#context.clock.wall());
    refuseEarlierTenant(tenant, at);
    const parts = { context: this.#context, means, service: this.#service, archiver, recoveries };
    return this.work.add("Restore", name, async ({ job: _job, ...rest }) => {
      // There is place for one server aside.
      const message = await this.#aside.run(() => restoreToTime(parts, tenant, at, this.#work(rest)));
      await this.#say(name, "Normal", "Restored", message);
      return message;
    });
  }

  async undoRestore(name: string): Promise<Job> {
    const tenant = await this.#service.getTenant(name);
    const refusal = whyNotRestored(tenant);
    if (refusal !== undefined) throw new UserError("Conflict", refusal);
    const parts = { context: this.#context, service: this.#service };
    const own = await this.#ownOf(tenant);
    const copies = own ? undefined : this.#copies();
    return this.work.add("Restore", name, async ({ job: _job, ...rest }) => {
      // Interrupted after it was put beside, it is there still.
      const storage = storageOf(tenant);
      const beside = await copies?.beside(storage);
      // Without a mark, it was put there by an earlier version.
      if (copies && beside !== FORMER && beside !== "") await copies.takeBack(storage);
      if (own && (await own.databases.last(own.tenant, own.secrets)) === undefined)
        throw new UserError("NotFound", `no former database of ${name} is kept: there is no restore to undo`);
      const schemaRelease = tenant.status.restored?.schemaRelease;
      const what = { backup: FORMER, ...(schemaRelease === undefined ? {} : { schemaRelease }) };
      await exchangeNow(parts, name, what, this.#work(rest));
      const message = `${name} runs with the database ${FORMER} again`;
      await this.#say(name, "Normal", "RestoreUndone", message);
      return message;
    });
  }

  async forgetRestore(name: string): Promise<void> {
    const tenant = await this.#service.getTenant(name);
    if (tenant.status.restore) throw new UserError("Conflict", `tenant ${name} is being restored`);
    const own = await this.#ownOf(tenant);
    if (own) await own.databases.forget(own.tenant, own.secrets);
    else await this.#copies().forget(storageOf(tenant));
  }

  /** Of a tenant that brings its database along, what its restores need. */
  async #ownOf(
    tenant: Tenant,
  ): Promise<(Pick<OwnRestores, "databases"> & { tenant: Tenant; secrets: TenantSecretData }) | undefined> {
    const runs = await asItRuns(this.#context, tenant);
    if (!runs || !bringsDatabase(runs.tenant.spec)) return undefined;
    const { ownRestores } = this.#context;
    if (ownRestores) return { ...runs, databases: ownRestores.databases };
    throw new UserError("Conflict", "this platform restores no databases that tenants bring along");
  }

  async #asItRuns(tenant: Tenant): Promise<Pick<StartConfig, "config">> {
    return (await asItRuns(this.#context, tenant))?.tenant.spec ?? tenant.spec;
  }

  #noteMedia({ tenant, media }: BackupManifest): void {
    if (media.leftOut === undefined) this.#withoutMedia.delete(tenant);
    else this.#withoutMedia.set(tenant, media.leftOut);
  }

  #mediaProblems(): string[] {
    return [...this.#withoutMedia].flatMap(([storage, why]) => {
      const tenant = this.#context.reader.withStorage(storage);
      return tenant ? [`the last backup of tenant ${tenant.metadata.name} is without media: ${why}`] : [];
    });
  }

  jobs(): Job[] {
    return this.work.all();
  }

  job(id: string): Job {
    const job = this.work.get(id);
    if (job) return job;
    throw noJob(id);
  }

  async #backUp(name: string, config: BackupsConfig, means: BackupMeans, { job, ...rest }: JobContext) {
    const tenant = await this.#service.getTenant(name);
    const runs = await asItRuns(this.#context, tenant);
    if (!runs || !tenant.status.provisioned)
      throw new UserError("Conflict", `tenant ${name} is ${tenant.status.phase}, and has no database or keys yet`);
    const work = this.#work(rest);
    const manifest = await backUp(means, runs, config.recipient, work, () =>
      this.#ofTenantAdmins.has(job.id) ? "tenant-admin" : undefined,
    );
    job.backup = manifest.id;
    this.#noteMedia(manifest);
    rest.say("what is due is removed");
    const removed = await prune(means, storageOf(tenant), retentionFor(config, name), work.now());
    if (removed > 0)
      await this.#say(name, "Normal", "BackupsRemoved", `${removed} backups of ${name} were due, and are removed`);
    return manifest;
  }

  async #tellFailure(name: string, why: string): Promise<void> {
    const tenant = this.#context.reader.get("Tenant", name);
    if (tenant) this.#schedule.failed(storageOf(tenant), why, this.#context.clock.wall());
    await this.#say(name, "Warning", "BackupFailed", `${name} could not be backed up: ${why}`);
  }

  async #choose(means: BackupMeans, tenant: string, { backup, at }: RestoreRequest): Promise<BackupManifest> {
    refuseName(tenant);
    const catalogue = new Catalogue(means.target);
    const storage = await this.#storageOf(catalogue, tenant);
    if (backup !== undefined) return catalogue.manifest(storage, backup);
    const found = backupAt(await catalogue.all(storage), at === undefined ? undefined : Date.parse(at));
    if (found) return found;
    const when = at === undefined ? "" : ` from before ${at}`;
    throw new UserError("NotFound", `${means.target.place} has no backup of ${tenant}${when}`);
  }

  /** Where a tenant's backups are, whether it is there, deleted, or known to the target alone. */
  async #storageOf(catalogue: Catalogue, name: string): Promise<string> {
    const storage = (await knownStorageOf(this.#context, name)) ?? (await catalogue.storageOf(name));
    const owner = (await ownerOf(this.#context, storage)) ?? name;
    if (owner !== name)
      throw new UserError(
        "NotFound",
        `there is no backup of a tenant ${name}; one of that name was renamed to ${owner}`,
      );
    return storage;
  }

  /** @param name that it has now */
  async #entry(catalogue: Catalogue, found: BackupManifest, name: string): Promise<BackupEntry> {
    const verification = await catalogue.verification(found);
    const { name: _, ...backup } = { ...found, tenant: name };
    return { backup, ...(verification ? { verification } : {}) };
  }

  /** They need no target. */
  #copies(): DatabaseCopies {
    return this.#context.restored?.copies ?? this.#configured().means.copies;
  }

  #archives() {
    const { means } = this.#configured();
    const recoveries = this.#settings.pointInTime?.recoveries;
    if (this.#archiver && recoveries) return { archiver: this.#archiver, recoveries, means };
    throw new UserError(
      "Conflict",
      "the database server is not the cluster's own: docs/point-in-time.md says how its owner does it",
    );
  }

  #configured(): { config: BackupsConfig; means: BackupMeans } {
    const found = this.#settings.config();
    if (found) return found;
    throw new UserError(
      "Conflict",
      "no backups are configured: set `backups` with a target and a recipient (docs/backups.md)",
    );
  }

  #work({ say, signal }: Pick<JobContext, "say" | "signal">): Work {
    return { say, signal, now: () => this.#context.clock.now() };
  }

  #again(): void {
    if (this.#isClosed) return;
    this.#cancel = this.#context.clock.after(LOOK_EVERY_MS, () => {
      this.#look = this.#beginDue().finally(() => this.#again());
    });
  }

  /** With the backups that somebody asked an earlier controller for. */
  async #goOn(): Promise<void> {
    if (!this.#settings.config()) return;
    for (const { name, asked } of this.#asked.left()) {
      const { id, byTenantAdmin = false } = asked;
      // One whose tenant is being renamed, or has another job, is looked at the next time.
      if (this.work.underWay(name) || this.work.refusal(name)) continue;
      if (AskedBackups.isGivenUp(asked)) await this.#giveUp(name, id);
      else this.#begin(name, { id, byTenantAdmin });
    }
  }

  /** Never fails: the note stays until it can be removed. */
  async #giveUp(name: string, id: string): Promise<void> {
    try {
      const why =
        "controllers ended twice while they made it, so it is not begun again by itself; see why they ended, and ask for it again";
      await this.#tellFailure(name, why);
      await this.#asked.done({ id, tenant: name });
    } catch (error) {
      this.#context.log.warn({ tenant: name, backup: id, why: messageOf(error) }, "a backup cannot be given up yet");
    }
  }

  /** Begins what is due by the schedule. Never fails. */
  async #beginDue(): Promise<void> {
    const { reader, clock, log } = this.#context;
    try {
      const now = this.#settings.config();
      if (!now) return;
      // No reason to make no backups.
      await this.#asked
        .tidy()
        .catch((error: unknown) => log.debug({ why: messageOf(error) }, "notes cannot be removed"));
      await this.#goOn();
      const catalogue = new Catalogue(now.means.target);
      for (const tenant of Array.from(reader.values("Tenant"))) {
        const { name } = tenant.metadata;
        if (!tenant.status.provisioned || tenant.metadata.deletionTimestamp !== undefined) continue;
        if (tenant.status.rename) continue;
        if (!this.#schedule.isDue(tenant, now.config, clock.wall())) continue;
        if (this.jobs().some((job) => job.tenant === name && job.finishedAt === undefined)) continue;
        const storage = storageOf(tenant);
        if (!this.#schedule.knows(storage)) {
          const last = backupAt((await catalogue.all(storage)).filter(({ by }) => by === undefined));
          this.#schedule.learn(storage, last && Date.parse(last.takenAt));
          if (last) this.#noteMedia(last);
          if (!this.#schedule.isDue(tenant, now.config, clock.wall())) continue;
        }
        this.#begin(name);
      }
      if (this.#missed.over()) await this.#tell("Normal", "BackupsResumed", "backups of the schedule are made again");
    } catch (error) {
      log.warn({ why: messageOf(error) }, "it cannot be seen which backups are due; tried again later");
      const missed = this.#missed.failed(messageOf(error), clock.wall());
      if (missed !== undefined) await this.#tell("Warning", "BackupsMissed", missed);
    }
  }

  #tell(type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    return recordEvent(this.#context, { type, reason, object: "Cluster/backups", message });
  }

  #say(name: string, type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    return recordEvent(this.#context, { type, reason, object: `Tenant/${name}`, message });
  }
}

function refuseName(tenant: string): void {
  const problem = tenantNameProblem(tenant);
  if (problem !== undefined) throw new UserError("InvalidInput", problem);
}
