/** The controller's process on one machine: the composition root of store, launcher, databases, loops and API. */
import { availableParallelism } from "node:os";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { giveMemoryBackWhenIdle } from "../../memory/idle-memory.ts";
import { EVENT_LOOP_SAMPLE_MS } from "../../model/event-loop.ts";
import { SteadyClock } from "../../model/clock.ts";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { complain, LogFile } from "../../logging/log-file.ts";
import { collectDefaultMetrics, Registry } from "prom-client";
import { Accounts } from "../../api/access/accounts/accounts.ts";
import { consoleAccessOf } from "../../api/access/console-access.ts";
import { FileEnds } from "../../api/access/ended-sessions.ts";
import { FileUses } from "../../api/access/last-uses.ts";
import { FileTokens } from "../../api/access/named-tokens.ts";
import { startApi } from "../../api/server.ts";
import { Notifier } from "../../controller/notifications/notifier.ts";
import { channelsOf } from "../../notifications/channels.ts";
import { FileNotificationStates } from "./notification-states.ts";
import { Sessions } from "../../api/access/sessions.ts";
import { Claims } from "../../controller/claims/claims.ts";
import { StoreFleetService } from "../../controller/service/fleet-service.ts";
import { StoreClusterService } from "../../controller/service/store-cluster-service.ts";
import { DEFAULT_TIMING, type ControllerContext } from "../../controller/context.ts";
import { Controller } from "../../controller/controller.ts";
import { answersHealth } from "../../controller/tenants/dedicated.ts";
import { processTimeAt } from "../../controller/usage/process-time.ts";
import { askPublicly } from "../../controller/tenants/last-words.ts";
import { createControllerMetrics } from "../../controller/metrics.ts";
import { AcmeAuthority } from "../../acme/acme-authority.ts";
import { dnsHook } from "../../acme/dns-hook.ts";
import { CertificateKeeper } from "../../controller/certificates/certificate-keeper.ts";
import { Network } from "../../checks/network.ts";
import { reachabilityIn } from "../../checks/reachability.ts";
import { WorldChecker } from "../../checks/world-checker.ts";
import { backupTarget } from "../../backups/target.ts";
import { ageSealer } from "../../backups/age-sealer.ts";
import { databaseIn } from "../../controller/backups/restore.ts";
import { StoreBackupService } from "../../controller/backups/store-backup-service.ts";
import { StoreInspectionService } from "../../controller/backups/store-inspection-service.ts";
import { StoreExportService } from "../../controller/exports/store-export-service.ts";
import { StoreImportService } from "../../controller/imports/store-import-service.ts";
import { PostgresCopies } from "../../database/copies.ts";
import { PostgresOwnDatabases } from "../../database/own-databases.ts";
import { PostgresInspections } from "../../database/inspections.ts";
import { PostgresServerLog } from "../../database/server-log.ts";
import { PostgresMoves } from "../../database/moves.ts";
import { PostgresTenantDatabases } from "../../database/postgres-tenant-databases.ts";
import { LoadBook } from "../../controller/shards/load-book.ts";
import { Turns } from "../../controller/turns.ts";
import { ReservedNames } from "../../controller/tenants/reserved-names.ts";
import { plotsFrom } from "../../controller/history/prometheus.ts";
import { HistoryRecorder } from "../../controller/history/history-recorder.ts";
import { UsageBook } from "../../controller/usage/usage-book.ts";
import { UsageRecorder } from "../../controller/usage/usage-recorder.ts";
import { IdleTenants } from "../../controller/sleep/idle-tenants.ts";
import { RouteFeed } from "../../controller/routes/route-feed.ts";
import { LocalPreparers } from "./launcher/local-preparers.ts";
import { findMeans, helperIn } from "./launcher/confinement.ts";
import { copyRuntime } from "./launcher/runtime-copy.ts";
import { LocalMediaFiles } from "./launcher/media-files.ts";
import { TenantMedia } from "./launcher/tenant-media.ts";
import { ForkServers } from "./launcher/fork-server.ts";
import { LocalLauncher } from "./launcher/local-launcher.ts";
import { readConfigFile } from "../../model/config-file.ts";
import type { BackupTargetConfig } from "../../model/backup.ts";
import { policyOf } from "../../model/cluster-config.ts";
import { storageOf } from "../../model/storage-name.ts";
import type { Tenant } from "../../model/tenant.ts";
import { CachedReader } from "../../controller/cached-reader.ts";
import { LocalHistory } from "./store/local-history.ts";
import { LocalStore } from "./store/local-store.ts";
import { SecretBox, storeKey } from "./store/secret-box.ts";
import { inspectStore } from "./store/store-file.ts";
import { ownUrlOf } from "../../model/homeserver-config.ts";
import { authenticationDestinations } from "../../model/authentication-service.ts";
import { allowedHostsFor, policyFor } from "../../model/tenant-policy.ts";
import { type ControllerConfig, ControllerConfigSchema } from "./controller-config.ts";
import { databaseServers } from "./database-servers.ts";
import { AuditFile } from "./audit-file.ts";
import { writeAtomically } from "./files.ts";
import { LocalRecoveries } from "./postgres/recovery.ts";
import { LocalSpool } from "./spool.ts";
import { LocalImportSource } from "./imports/local-import-source.ts";
import { diskProblems } from "./disks.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import { machineProblem } from "../../model/machine-problem.ts";
import { cleanOwnEnvironment, systemEnvironment } from "./environment.ts";
import { exitWithParent } from "./up/parent.ts";
import { isInstalled, refuseUnknownRelease } from "./toolchain/known-releases.ts";
import { refuseUnsupportedRelease } from "./toolchain/supported-releases.ts";
import { TenantModules } from "./toolchain/tenant-modules.ts";
import { ensurePostgres, ensureSynapse, POSTGRES_MAJOR } from "./toolchain/toolchain.ts";
import { ROOT, VERSION } from "../../model/project.ts";

const STOP_SECONDS = 20;
/** What the loops are at may hang on a shard that does not answer; being killed there does no harm, so they are not waited for longer. */
const LOOPS_STOP_SECONDS = 5;

async function main(): Promise<void> {
  cleanOwnEnvironment();
  giveMemoryBackWhenIdle();
  const configFile = process.argv[process.argv.indexOf("--config") + 1];
  if (configFile === undefined) throw new UserError("InvalidInput", "usage: controller-main --config FILE");
  const config = await readConfigFile(configFile, ControllerConfigSchema);
  const logFile = new LogFile({ path: config.logFile, onProblem: (sentence) => complain(`controller: ${sentence}`) });
  const log = pino({ level: "info" }, logFile);
  const registry = new Registry();
  collectDefaultMetrics({
    register: registry,
    prefix: "synapse_shards_controller_",
    eventLoopMonitoringPrecision: EVENT_LOOP_SAMPLE_MS,
  });
  const { store, box } = openStore(config);
  const { python } = await ensureSynapse(config.cluster.release, { cacheDir: config.cacheDir });
  const means = await findMeans({ python, helper: helperIn(ROOT), places: [config.dataDir, config.cacheDir] });
  for (const weakness of means.weaknesses) log.warn(weakness);
  const runtimePath = copyRuntime(ROOT, join(config.dataDir, "runtime"));
  const media = new TenantMedia(join(config.dataDir, "media"), means.users);
  const { allowUntestedReleases, databaseRolesLeftAlone } = config.cluster;
  const modulesDirectory = join(config.dataDir, "modules");
  const modules = new TenantModules(modulesDirectory, config.cluster.modules, log);
  const installModules = (release: string, itsPython: string) => modules.ensure(release, itsPython);
  const readable = [config.caCertificate, modulesDirectory];
  const launcher = new LocalLauncher({
    directory: join(config.dataDir, "shards"),
    runtimePath,
    confinement: { means, media, readable },
    installSynapse: (version, onProgress) => {
      refuseUnsupportedRelease(version, allowUntestedReleases);
      return ensureSynapse(version, { cacheDir: config.cacheDir, onProgress });
    },
    checkRelease: async (release) => {
      refuseUnsupportedRelease(release, allowUntestedReleases);
      if (!isInstalled(release, config.cacheDir)) return refuseUnknownRelease(release, config.cacheDir);
      return (await ensureSynapse(release, { cacheDir: config.cacheDir, onProgress: () => {} })).facts;
    },
    installModules,
    settings: { allowUntestedReleases, databaseRolesLeftAlone },
    forkServers: new ForkServers(),
    warn: (sentence) => log.warn(sentence),
  });
  const reader = new CachedReader(store);
  const own = { ...config.postgres, password: secretIn(config.postgres.passwordFile) };
  const servers = databaseServers(own, config.cluster.databaseServers, (storage) => reader.withStorage(storage));
  const databases = new PostgresTenantDatabases({
    servers,
    seal: box,
    preparers: new LocalPreparers(
      runtimePath,
      (version) => ensureSynapse(version, { cacheDir: config.cacheDir, onProgress: () => {} }),
      { means, directory: join(config.dataDir, "preparers"), readable },
      allowUntestedReleases,
      installModules,
    ),
  });
  const { binDir } = await ensurePostgres({ cacheDir: config.cacheDir });
  const programs = { binDir, environment: systemEnvironment() };
  const pointInTime = {
    log: new PostgresServerLog(own, programs, join(config.dataDir, "log-to-archive")),
    recoveries: new LocalRecoveries(realpathSync(join(config.dataDir, "postgres")), binDir),
  };
  const restored = {
    copies: new PostgresCopies(servers, programs),
    media: new LocalMediaFiles(media),
  };
  const meansAt = (target: BackupTargetConfig) => ({
    ...restored,
    sealer: ageSealer,
    target: backupTarget(target, config.dataDir),
  });
  const backupsOf = (asked: ControllerConfig["cluster"]["backups"]) =>
    asked && { config: asked, means: meansAt(asked.target) };
  let backupsNow = backupsOf(config.cluster.backups);
  const clock = new SteadyClock();
  const context: ControllerContext = {
    store,
    reader,
    launcher,
    databases,
    feed: new RouteFeed(),
    usage: new UsageBook(),
    recorder: new UsageRecorder({ history: store.usage, reader, clock, log }),
    history: new HistoryRecorder({
      store: new LocalHistory(config.historyFile, (sentence) => log.warn(sentence)),
      clock,
      log,
      ...plotsFrom(config.cluster.history, clock, () => context.policy.maxTenantsPerShard),
    }),
    claims: new Claims(
      (tenant) => databases.address(tenant),
      clock,
      (tenant) => allowedHostsFor(config.cluster.tenantPolicy, tenant),
    ),
    policy: policyOf(config.cluster, availableParallelism()),
    cpuBudget: config.cluster.cpuBudget,
    plans: config.cluster.plans,
    clock,
    shardClients: new Map(),
    idle: new IdleTenants(clock),
    loads: new LoadBook(),
    maintenanceWindows: config.cluster.maintenanceWindows,
    timing: timingOf(config),
    metrics: createControllerMetrics(registry),
    log,
    environment: (tenant) => surroundingsOf(config, databases, media, tenant),
    answers: answersHealth,
    processTime: processTimeAt,
    asks: askPublicly,
    deletions: {
      records: store.deleted,
      keepDays: config.cluster.deletedTenantsKeptDays,
      lock: new Turns(),
      reserved: new ReservedNames(),
      mediaOf: (tenant) => media.inventory(tenant),
    },
    restored,
    ownRestores: {
      databases: new PostgresOwnDatabases(programs),
      read: (storage, backup) => databaseIn(backupsNow?.means.target, storage, backup),
    },
    databaseMoves: new PostgresMoves(servers, programs),
    removeMedia: (tenant) => media.remove(tenant),
  };
  const workFor = (tenant: string) => backups.work.underWay(tenant)?.kind;
  context.workFor = workFor;
  context.feed.adminContact = config.cluster.adminContact;
  const controller = new Controller(context);
  await controller.start();
  // Shards that run find packages that are new to the configuration, or miss what it no longer has.
  for (const release of new Set((await store.list("Shard")).map(({ spec }) => spec.release)))
    if (isInstalled(release, config.cacheDir))
      void ensureSynapse(release, { cacheDir: config.cacheDir }).then((found) => modules.ensure(release, found.python));
  let { publicAccess } = config.cluster;
  const isLocal = config.cluster.baseDomain === "localhost";
  const network = new Network({
    access: () => publicAccess,
    allowPrivate: isLocal,
    authorities: () => {
      const file = config.cluster.certificates?.acme.authorities;
      return file === undefined ? [] : [readFileSync(file, "utf8")];
    },
    ownAuthorities: () => [readFileSync(config.caCertificate, "utf8")],
  });
  const keeper = certificateKeeper(config, context, store, network);
  const settings = {
    version: VERSION,
    release: config.cluster.release,
    baseDomain: config.cluster.baseDomain,
    leadsToAuthentication: true,
    dedicates: true,
    urlOf: (tenant: Tenant) => urlOf(config, tenant),
    ...adminEntranceOf(config),
    publicAccess: () => publicAccess,
    checker: new WorldChecker({ network, now: () => clock.wall(), isLocal }),
    workFor,
    configNames: (tenant: string) =>
      Object.entries({
        "backups.tenants": backupsNow?.config.tenants ?? {},
        "cpuBudget.byTenant": config.cluster.cpuBudget.byTenant,
        "tenantPolicy.byTenant": config.cluster.tenantPolicy.byTenant,
      }).flatMap(([place, byName]) => (Object.hasOwn(byName, tenant) ? [place] : [])),
    platformProblems: () => [
      ...diskProblems(placesOf(config)),
      ...means.weaknesses,
      ...modules.problems(),
      ...backups.problems(),
      ...notifier.problems(),
      ...(keeper?.problems() ?? []),
      ...(consoleAccess.oidc?.problems() ?? []),
    ],
  };
  const service = new StoreClusterService(context, settings);
  const backups: StoreBackupService = new StoreBackupService(context, service, {
    config: () => backupsNow,
    meansAt,
    pointInTime,
  });
  await backups.start();
  const inspections = new StoreInspectionService(context, backups, new PostgresInspections(own));
  await inspections.start();
  const notificationsOf = (asked: ControllerConfig["cluster"]["notifications"]) => ({
    ...asked,
    channels: channelsOf(asked),
  });
  let notificationsNow = notificationsOf(config.cluster.notifications);
  const notifier: Notifier = new Notifier({
    store,
    states: new FileNotificationStates(join(config.dataDir, "notifications.json")),
    clock,
    log,
    config: () => notificationsNow,
  });
  notifier.start();
  await keeper?.start();
  const spool = new LocalSpool(join(config.dataDir, "spool"));
  const source = new LocalImportSource({
    means,
    runtimePath,
    directory: join(config.dataDir, "imports"),
    readable,
    installModules,
    installSynapse: (version) => ensureSynapse(version, { cacheDir: config.cacheDir, onProgress: () => {} }),
  });
  const imports = new StoreImportService(
    context,
    service,
    { ...restored, source },
    { jobs: backups.work, release: () => settings.release },
  );
  const exports = new StoreExportService(context, service, { ...restored, spool, postgresMajor: POSTGRES_MAJOR });

  const apiToken = secretIn(config.apiTokenFile);
  const stateFile = (file: string) => ({
    file,
    write: (text: string) => writeAtomically(file, text),
    onProblem: (problem: string) => log.error(problem),
  });
  let consoleUrl = "";
  const consoleAccess = consoleAccessOf({
    signIn: config.cluster.signIn,
    hosts: config.api.consoleHosts,
    sessions: new Sessions(
      () => [apiToken],
      () => new Date(),
      new FileEnds(stateFile(join(config.dataDir, "ended-sessions.json"))),
    ),
    ownUrl: () => consoleUrl,
    accounts: {
      accounts: new Accounts(stateFile(join(config.dataDir, "accounts.json"))),
      protect: { seal: (text) => box.seal("accounts", text), open: (text) => box.open("accounts", text) },
    },
    log,
  });
  const auditKeptDays = { now: config.cluster.auditKeptDays };
  let ending: Promise<void> | undefined;
  const end = (stopShards: boolean): Promise<void> => (ending ??= shutDown(stopShards));
  const api = await startApi({
    service,
    ...(keeper ? { certificates: keeper } : {}),
    backups,
    inspections,
    notifications: notifier,
    exports,
    imports,
    fleet: new StoreFleetService(context),
    routeFeed: context.feed,
    host: config.api.host,
    port: config.api.port,
    metricsNeedToken: config.api.metricsNeedToken,
    trustProxy: config.api.trustedProxies,
    namedTokens: new FileTokens({
      ...stateFile(config.tokensFile),
      uses: new FileUses(stateFile(join(config.dataDir, "token-uses.json"))),
    }),
    audit: new AuditFile(config.auditFile, {
      keepDays: () => auditKeptDays.now,
      onProblem: (problem) => log.error(problem),
    }),
    apiToken,
    console: consoleAccess,
    gatewayToken: secretIn(config.gatewayTokenFile),
    metrics: registry,
    logger: log,
    onShutdown: () => void end(true),
  });
  // By its name: passkeys are for names, and an identity provider has one address to lead back to.
  consoleUrl = api.url.replace(/\/\/(127\.0\.0\.1|\[::1?\]|0\.0\.0\.0):/, "//localhost:");
  void consoleAccess.oidc?.check();
  writeAtomically(config.readyFile, JSON.stringify({ pid: process.pid, apiUrl: api.url }));
  log.info({ url: api.url }, "controller is up");

  async function reload(file: string): Promise<void> {
    logFile.reopen();
    try {
      const next = await readConfigFile(file, ControllerConfigSchema);
      backupsNow = backupsOf(next.cluster.backups);
      notificationsNow = notificationsOf(next.cluster.notifications);
      // In place: what decides by them reads them each time.
      Object.assign(context.policy, policyOf(next.cluster, availableParallelism()));
      context.cpuBudget = next.cluster.cpuBudget;
      context.maintenanceWindows = next.cluster.maintenanceWindows;
      Object.assign(context.timing, timingOf(next));
      if (context.deletions) context.deletions.keepDays = next.cluster.deletedTenantsKeptDays;
      settings.release = next.cluster.release;
      ({ publicAccess } = next.cluster);
      context.plans = next.cluster.plans;
      context.feed.adminContact = next.cluster.adminContact;
      controller.lookAgain();
      auditKeptDays.now = next.cluster.auditKeptDays;
      log.info("the configuration is read again");
    } catch (error) {
      log.error({ problem: messageOf(error) }, "the configuration before stays in use");
    }
  }

  /** Loops first, so that nobody starts again what is being stopped. */
  async function shutDown(stopShards: boolean): Promise<void> {
    log.info({ stopShards }, "controller stops");
    const work = Promise.all([
      backups.close(),
      inspections.close(),
      notifier.close(),
      keeper?.close(),
      controller.stop(),
    ]);
    await Promise.race([work, sleep(LOOPS_STOP_SECONDS * 1000)]);
    if (stopShards) {
      const shards = await store.list("Shard");
      await Promise.all(shards.map((shard) => launcher.stop(shard.metadata.name, STOP_SECONDS)));
    }
    context.feed.close();
    await api.close();
    await databases.close();
    await store.close();
    process.exit(0);
  }
  process.on("SIGHUP", () => void reload(configFile));
  // Asked to end without a word about the shards, it leaves them serving: the next controller finds them.
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => void end(false));
  exitWithParent(() => end(false));
}

/** Gets certificates for tenants' names, where the configuration says of whom. */
function certificateKeeper(
  { cluster, certificatesDirectory }: ControllerConfig,
  context: ControllerContext,
  store: LocalStore,
  network: Network,
): CertificateKeeper | undefined {
  const acme = cluster.certificates?.acme;
  if (!acme) return undefined;
  const { dnsHook: program } = acme;
  const hook =
    program === undefined
      ? {}
      : { dns: dnsHook({ program, environment: systemEnvironment(), txt: (name) => network.txt(name) }) };
  return new CertificateKeeper(context, {
    config: acme,
    baseDomain: cluster.baseDomain,
    store: store.certificates,
    authority: new AcmeAuthority({ config: acme, ...hook }),
    reachability: reachabilityIn(network),
    hasOwnFiles: (name) => existsSync(join(certificatesDirectory, `${name}.crt`)),
  });
}

/** A copy of the store is renewed this long after each change that matters. */
const BACKUP_AFTER_SECONDS = 2;

function openStore({ storeFile, storeKeyFile }: ControllerConfig): { store: LocalStore; box: SecretBox } {
  const box = new SecretBox(storeKey(storeKeyFile, !inspectStore(storeFile).sealed));
  return { store: new LocalStore(storeFile, { box, backupAfterSeconds: BACKUP_AFTER_SECONDS }), box };
}

function surroundingsOf(
  config: ControllerConfig,
  databases: PostgresTenantDatabases,
  media: TenantMedia,
  tenant: Tenant,
) {
  const name = tenant.metadata.name;
  const allowLocalFederation = config.cluster.baseDomain === "localhost";
  return {
    publicBaseUrl: `${platformUrlOf(config, tenant)}/`,
    database: databases.address(tenant),
    mediaPath: media.pathOf(storageOf(tenant)),
    federationCaFiles: [config.caCertificate],
    allowLocalFederation,
    adminContact: config.cluster.adminContact,
    policy: policyFor(config.cluster.tenantPolicy, name, {
      destinations: [
        ...(allowLocalFederation ? gatewayPorts(config) : []),
        ...authenticationDestinations(tenant.spec.authenticationService),
      ],
    }),
  };
}

/** Where neighbours are found on this machine, and nothing else of it. */
function gatewayPorts({ gatewayUrls }: ControllerConfig): string[] {
  const ports = Object.values(gatewayUrls).map((url) => new URL(url).port || (url.startsWith("https:") ? "443" : "80"));
  return ports.flatMap((port) => [`127.0.0.1:${port}`, `[::1]:${port}`]);
}

/** The tenant's URL for clients: its own word for it, or the gateway's port under its host name. */
function urlOf(config: ControllerConfig, tenant: Tenant): string {
  const own = ownUrlOf(tenant);
  return own ?? platformUrlOf(config, tenant);
}

function platformUrlOf(config: ControllerConfig, tenant: Tenant): string {
  const url = new URL(config.gatewayUrls.http);
  url.hostname = tenant.spec.serverName.replace(/:\d+$/, "");
  return url.origin;
}

function adminEntranceOf({ adminPort, cluster }: ControllerConfig) {
  const { adminAccess } = cluster.gateway;
  return adminAccess && adminPort !== undefined ? { adminEntrance: { ...adminAccess, listensAt: adminPort } } : {};
}

function timingOf({ cluster }: ControllerConfig) {
  return { ...DEFAULT_TIMING, shardLostAfter: cluster.shardLostAfterSeconds };
}

function placesOf({ dataDir, cacheDir }: ControllerConfig): { directory: string; what: string }[] {
  return [
    { directory: dataDir, what: "store, media, logs" },
    { directory: join(dataDir, "postgres"), what: "databases" },
    { directory: cacheDir, what: "installed releases" },
  ];
}

function secretIn(file: string): string {
  return readFileSync(file, "utf8").trim();
}

main().catch((error: unknown) => {
  complain(
    error instanceof UserError ? error.message : (machineProblem(error) ?? (error as Error).stack ?? messageOf(error)),
  );
  process.exit(1);
});
