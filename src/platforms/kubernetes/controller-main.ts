/** The controller's process on Kubernetes: the composition root of store, launcher, databases, loops, API and leader election. */
import { randomBytes } from "node:crypto";
import { giveMemoryBackWhenIdle } from "../../memory/idle-memory.ts";
import { EVENT_LOOP_SAMPLE_MS } from "../../model/event-loop.ts";
import { SteadyClock } from "../../model/clock.ts";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { pino, type Logger } from "pino";
import { collectDefaultMetrics, Registry } from "prom-client";
import { consoleAccessOf } from "../../api/access/console-access.ts";
import { Sessions } from "../../api/access/sessions.ts";
import { startApi } from "../../api/server.ts";
import { Network } from "../../checks/network.ts";
import { WorldChecker } from "../../checks/world-checker.ts";
import { Claims } from "../../controller/claims/claims.ts";
import { StoreFleetService } from "../../controller/service/fleet-service.ts";
import { StoreClusterService } from "../../controller/service/store-cluster-service.ts";
import { databaseIn } from "../../controller/backups/restore.ts";
import { StoreBackupService } from "../../controller/backups/store-backup-service.ts";
import { DEFAULT_TIMING, type ControllerContext } from "../../controller/context.ts";
import { Controller } from "../../controller/controller.ts";
import { answersHealth } from "../../controller/tenants/dedicated.ts";
import { processTimeAt } from "../../controller/usage/process-time.ts";
import { askPublicly } from "../../controller/tenants/last-words.ts";
import { createControllerMetrics } from "../../controller/metrics.ts";
import { PostgresTenantDatabases } from "../../database/postgres-tenant-databases.ts";
import { LoadBook } from "../../controller/shards/load-book.ts";
import { HistoryRecorder } from "../../controller/history/history-recorder.ts";
import { plotsFrom } from "../../controller/history/prometheus.ts";
import { UsageBook } from "../../controller/usage/usage-book.ts";
import { UsageRecorder } from "../../controller/usage/usage-recorder.ts";
import { IdleTenants } from "../../controller/sleep/idle-tenants.ts";
import { RouteFeed } from "../../controller/routes/route-feed.ts";
import { Turns } from "../../controller/turns.ts";
import { ReservedNames } from "../../controller/tenants/reserved-names.ts";
import { backupParts } from "./backups/means.ts";
import { ShardPreparers } from "./shard-preparers.ts";
import { HISTORY_LABEL, ShelfHistory } from "./history/shelf-history.ts";
import { SecretUsageHistory } from "./usage/secret-usage-history.ts";
import { KubernetesLauncher } from "./launcher/kubernetes-launcher.ts";
import { MEDIA_CACHE_PATH } from "./launcher/manifests.ts";
import { VERSION } from "../../model/project.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import type { Tenant } from "../../model/tenant.ts";
import { CachedReader } from "../../controller/cached-reader.ts";
import { KubernetesDeletedTenants } from "./store/kubernetes-deleted-tenants.ts";
import { KubernetesStore } from "./store/kubernetes-store.ts";
import { ownUrlOf } from "../../model/homeserver-config.ts";
import { allowedHostsFor, policyFor, type AssignmentPolicy } from "../../model/tenant-policy.ts";
import { loadKubeConfig } from "./client.ts";
import { ClusterTokens } from "./cluster-tokens.ts";
import { NodeMaintenance } from "./node-maintenance.ts";
import { TenantNamespaces } from "./tenant-namespaces/tenant-namespaces.ts";
import { releaseIfNamespaceEnds } from "./namespace-end.ts";
import { readControllerConfig, type KubernetesControllerConfig } from "./controller-config.ts";
import { AUDIT_LABEL, KubernetesAudit } from "./audit/kubernetes-audit.ts";
import { SecretShelf } from "./secret-shelf.ts";
import { startConsoleListener } from "./console/console-listener.ts";
import { SecretEnds } from "./console/secret-ends.ts";
import { TokenReviews } from "./console/token-reviews.ts";
import { ReplicaProof } from "./replica-proof.ts";
import { startLeaderProxy, type LeaderProxyOptions } from "./leader-proxy.ts";
import { LeaderElection } from "./leader-election.ts";

/** What the loops are at may hang on a shard that does not answer; being killed there does no harm, so they are not waited for longer. */
const LOOPS_STOP_MS = 5_000;
const FOLLOW_AGAIN_MS = 10_000;

/** What runs while this process leads. */
interface Leadership {
  apiUrl: string;
  stop(): Promise<void>;
}

async function main(): Promise<void> {
  giveMemoryBackWhenIdle();
  const { values } = parseArgs({ options: { config: { type: "string" } } });
  if (values.config === undefined) throw new UserError("InvalidInput", "usage: controller-main.ts --config FILE");
  const config = await readControllerConfig(values.config);
  const log = pino({ name: "controller", level: config.logLevel });
  const registry = new Registry();
  collectDefaultMetrics({
    register: registry,
    prefix: "synapse_shards_controller_",
    eventLoopMonitoringPrecision: EVENT_LOOP_SAMPLE_MS,
  });
  const metrics = createControllerMetrics(registry);
  const kubeConfig = loadKubeConfig();
  const onError = (message: string) => log.warn(message);

  let leadership: Leadership | undefined;
  let leader: string | undefined;
  let ending: Promise<void> | undefined;
  const upstream = () => {
    if (leadership) return { url: leadership.apiUrl, own: true };
    return leader === undefined || leader === address ? undefined : { url: leader, own: false };
  };
  const proof = replicaProof(config, log);
  const leaderProxy = await startLeaderProxy({
    ...config.api,
    metrics: registry,
    logger: log,
    upstream,
    proof,
  });
  const consoleListener = config.console && (await startConsole(config, { logger: log, upstream, proof }));
  const podIp = process.env["POD_IP"] ?? "127.0.0.1";
  const address = `http://${podIp.includes(":") ? `[${podIp}]` : podIp}:${leaderProxy.port}`;
  const instance = process.env["POD_NAME"] ?? hostname();
  const election = new LeaderElection({
    config: kubeConfig,
    namespace: config.namespace,
    name: `${config.clusterId}-controller`,
    identity: `${instance}_${randomBytes(4).toString("hex")}`,
    address,
    onStartedLeading: () => {
      log.info("this controller leads");
      lead({ config, log, registry, metrics, instance, onError }).then(
        (begun) => {
          leadership = begun;
        },
        (error: unknown) => {
          log.fatal({ err: error }, `cannot lead: ${messageOf(error)}`);
          void end(1);
        },
      );
    },
    onStoppedLeading: (why) => {
      // At once, and whatever is under way: another leads by now, or soon will.
      log.fatal(`this controller leads no longer: ${why}`);
      process.exit(1);
    },
    onLeader: (at) => {
      leader = at;
      log.info({ leader: at }, at === undefined ? "there is no leader" : "there is a leader");
    },
    onError,
  });
  election.start();
  log.info({ address, clusterId: config.clusterId }, "controller is up");

  const end = (code: number): Promise<void> => (ending ??= shutDown(code));
  /** Loops first, then the lease: the next leader finds nobody at work. Shards and tenants stay as they are. */
  async function shutDown(code: number): Promise<void> {
    await leadership?.stop();
    // Any replica can do it, and which of them is told last is not known.
    await releaseIfNamespaceEnds(kubeConfig, config.namespace, config.clusterId).then(
      (ends) => ends && log.info("the namespace is being deleted: tenants and shards are let go"),
      (error: unknown) => log.warn(`cannot see whether the namespace is being deleted: ${messageOf(error)}`),
    );
    await election.stop();
    await Promise.all([leaderProxy.close(), consoleListener?.close()]);
    process.exit(code);
  }
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      log.info({ signal }, "controller stops");
      void end(0);
    });
  }
}

/** Good as soon as the Secret of the tokens is there: the first leader makes it. */
function replicaProof(config: KubernetesControllerConfig, log: Logger): ReplicaProof {
  let tokens: Pick<ClusterTokens, "api"> | undefined;
  const follow = async (): Promise<void> => {
    const { secret } = config.tokens;
    // What is wrong in it is the leader's to say.
    const onError = (message: string) => log.debug(message);
    const options = { config: loadKubeConfig(), namespace: config.namespace, secret, onError };
    for (;;)
      try {
        tokens = await ClusterTokens.follow(options);
        return;
      } catch (error) {
        log.warn(`cannot prove to the leader that this is a replica of it, trying again: ${messageOf(error)}`);
        await sleep(FOLLOW_AGAIN_MS);
      }
  };
  void follow();
  return new ReplicaProof(() => tokens?.api() ?? []);
}

/** Under the name of `signIn.consoleUrl`, and no other: a name that points here is not to pass for the console's. */
function startConsole(
  config: KubernetesControllerConfig,
  parts: Required<Pick<LeaderProxyOptions, "logger" | "upstream" | "proof">>,
) {
  const { consoleUrl } = config.signIn;
  if (consoleUrl === undefined)
    throw new UserError(
      "InvalidConfig",
      "signIn.consoleUrl is missing: the console needs the address that browsers have",
    );
  const { host, port, trustedProxies } = config.console!;
  const hosts = [new URL(consoleUrl).hostname];
  return startConsoleListener({ host, port, hosts, trustedProxies, ...parts });
}

interface LeadOptions {
  config: KubernetesControllerConfig;
  log: Logger;
  registry: Registry;
  metrics: ControllerContext["metrics"];
  instance: string;
  onError: (message: string) => void;
}

async function lead({ config, log, registry, metrics, instance, onError }: LeadOptions): Promise<Leadership> {
  const { clusterId, namespace } = config;
  const kubeConfig = loadKubeConfig();
  const { adminAccess } = config;
  const store = await KubernetesStore.open({
    config: kubeConfig,
    namespace,
    clusterId,
    instance,
    hasAdminEntrance: adminAccess !== undefined,
    onError,
  });
  const launcher = await KubernetesLauncher.open({
    config: kubeConfig,
    namespace,
    clusterId,
    pods: config.shard,
    managerVersion: VERSION,
    onError,
  });
  const databases = new PostgresTenantDatabases({ preparers: new ShardPreparers(store, launcher) });
  const clock = new SteadyClock();
  const reader = new CachedReader(store);
  const usage = await SecretUsageHistory.open({ config: kubeConfig, namespace, clusterId, onError });
  const deleted = await KubernetesDeletedTenants.open({ config: kubeConfig, namespace, clusterId, store, onError });
  const hostsIn = (tenant: string) => serviceHosts(store.secretNamespaceOf(tenant), config);
  const context: ControllerContext = {
    store,
    reader,
    launcher,
    databases,
    feed: new RouteFeed(),
    usage: new UsageBook(),
    recorder: new UsageRecorder({ history: usage, reader, clock, log }),
    history: new HistoryRecorder({
      store: await ShelfHistory.open({
        shelf: new SecretShelf({ config: kubeConfig, namespace, clusterId, label: HISTORY_LABEL }),
        clusterId,
        onError,
      }),
      clock,
      log,
      ...plotsFrom(config.history, clock, () => config.maxTenantsPerShard),
    }),
    claims: new Claims(
      (tenant) => databases.address(tenant),
      clock,
      (tenant) => allowedHostsFor(config.tenantPolicy, tenant, hostsIn(tenant)),
    ),
    policy: config,
    cpuBudget: config.cpuBudget,
    plans: config.plans,
    clock,
    shardClients: new Map(),
    idle: new IdleTenants(clock),
    loads: new LoadBook(),
    maintenanceWindows: config.maintenanceWindows,
    timing: { ...DEFAULT_TIMING, shardLostAfter: config.shardLostAfterSeconds, shardStartWithin: 300 },
    metrics,
    log,
    environment: (tenant) => environmentOf(config, databases, tenant, hostsIn(tenant.metadata.name)),
    answers: answersHealth,
    processTime: processTimeAt,
    asks: askPublicly,
    deletions: {
      records: deleted,
      keepDays: config.deletedTenantsKeptDays,
      lock: new Turns(),
      reserved: new ReservedNames(),
      mediaOf: async () => undefined,
      keyOf: (tenant) => store.ownSigningKey(tenant),
      recreate: (record, status) => deleted.recreate(record, status),
    },
    mediaNeedBuckets: true,
    // A tenant's bucket is its owner's; what is in a shard's cache goes with the shard.
    removeMedia: async () => {},
  };
  const tokens = await ClusterTokens.open({
    config: kubeConfig,
    namespace,
    ...config.tokens,
    owner: await store.fleetReference(),
    labels: { "app.kubernetes.io/name": "synapse-shards", "app.kubernetes.io/instance": clusterId },
    onError,
  });
  const maintenance = config.nodeMaintenance
    ? await NodeMaintenance.open({ config: kubeConfig, store, podOf: (shard) => launcher.podOf(shard), onError })
    : undefined;
  const tenantNamespaces = config.tenantNamespaces
    ? await TenantNamespaces.open({
        config: kubeConfig,
        clusterId,
        namespace,
        ownersOpen: adminAccess?.tenantAdmins ?? false,
        onError,
      })
    : undefined;
  const parts = config.backups && backupParts(config.backups, context, (tenant) => environmentPolicy(config, tenant));
  if (parts) {
    const { copies, media } = parts.means;
    context.restored = { copies, media };
    context.ownRestores = {
      databases: parts.databases,
      read: (storage, backup) => databaseIn(parts.means.target, storage, backup),
    };
  }
  let backups: StoreBackupService | undefined;
  const workFor = (tenant: string) => backups?.work.underWay(tenant)?.kind;
  context.workFor = workFor;
  metrics.tenantSecretUnreadable.ask = () => store.secretProblems().map(({ tenant, reason }) => ({ tenant, reason }));
  context.feed.adminContact = config.adminContact;
  const controller = new Controller(context);
  await controller.start();
  const service = new StoreClusterService(context, {
    version: VERSION,
    release: "",
    baseDomain: config.baseDomain,
    urlOf,
    ...(adminAccess ? { adminEntrance: { ...adminAccess, listensAt: adminAccess.port } } : {}),
    accessSaidIn: (tenant) => tenantNamespaces?.accessSaidIn(tenant),
    platformProblems: () => [...(backups?.problems() ?? []), ...(consoleAccess?.oidc?.problems() ?? [])],
    workFor,
    publicAccess: () => config.publicAccess,
    checker: new WorldChecker({
      network: new Network({ access: () => config.publicAccess, allowPrivate: config.allowLocalFederation }),
      now: () => clock.wall(),
      isLocal: config.allowLocalFederation,
    }),
  });
  if (config.backups && parts) {
    const settings = { config: config.backups, means: parts.means };
    backups = new StoreBackupService(context, service, {
      config: () => settings,
      meansAt: () => {
        throw new UserError("Conflict", "on Kubernetes, backups are those of the target that the values name");
      },
    });
    await backups.start();
  }
  const owner = await store.fleetReference();
  const consoleAccess =
    config.console &&
    consoleAccessOf({
      signIn: config.signIn,
      hosts: [],
      ownUrl: () => "",
      sessions: new Sessions(
        () => tokens.api(),
        () => new Date(),
        await SecretEnds.open({
          config: kubeConfig,
          namespace,
          name: `${clusterId}-console-sessions`,
          owner,
          labels: { "app.kubernetes.io/name": "synapse-shards", "app.kubernetes.io/instance": clusterId },
        }),
      ),
      log,
    });
  void consoleAccess?.oidc?.check();
  const reviews = config.signIn.kubernetes && TokenReviews.of(kubeConfig, config.signIn.kubernetes);
  const audit = await KubernetesAudit.open({
    shelf: new SecretShelf({ config: kubeConfig, namespace, clusterId, label: AUDIT_LABEL }),
    clusterId,
    keepDays: config.auditKeptDays,
    // For the log collection, too: it has them before they are written, and for longer.
    onEntry: (entry) => log.info({ audit: entry }, "audit"),
    onProblem: (message) => log.error(message),
  });
  // For this process alone: `startLeaderProxy` is what the world sees.
  const api = await startApi({
    service,
    fleet: new StoreFleetService(context, {
      changedBy:
        "on Kubernetes, the values of the chart synapse-shards describe it: `helm upgrade … --set fleet.imageTag=…`",
    }),
    routeFeed: context.feed,
    ...(backups ? { backups } : {}),
    host: "127.0.0.1",
    port: 0,
    apiToken: () => tokens.api(),
    gatewayToken: () => tokens.gateway(),
    namedTokens: tokens.named,
    ...(consoleAccess ? { console: consoleAccess } : {}),
    ...(reviews ? { reviewToken: (token: string) => reviews.actorOf(token) } : {}),
    audit,
    // Only our own proxy reaches it.
    trustProxy: true,
    metrics: registry,
    logger: log,
  });
  return {
    apiUrl: api.url,
    stop: async () => {
      await Promise.race([Promise.all([controller.stop(), backups?.close()]), sleep(LOOPS_STOP_MS)]);
      // Where the API server is away, the lease is not to wait for it.
      await Promise.race([usage.close().catch((error: unknown) => onError(messageOf(error))), sleep(LOOPS_STOP_MS)]);
      context.feed.close();
      await api.close();
      await audit.close();
      await databases.close();
      await maintenance?.close();
      await tenantNamespaces?.close();
      await tokens.close();
      await launcher.close();
      await deleted.close();
      await store.close();
    },
  };
}

/** Where servers of a test are. */
const PRIVATE_NETWORKS = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];

/** Names of all Services in a namespace: whoever has the tenant's Secrets there decides what these are. */
function serviceHosts(namespace: string | undefined, { shard }: KubernetesControllerConfig): string[] {
  return namespace === undefined ? [] : [`*.${namespace}.svc`, `*.${namespace}.svc.${shard.clusterDomain}`];
}

function environmentOf(
  config: KubernetesControllerConfig,
  databases: PostgresTenantDatabases,
  tenant: Tenant,
  hosts: readonly string[],
) {
  const { name } = tenant.metadata;
  return {
    publicBaseUrl: `${platformUrlOf(tenant)}/`,
    database: databases.address(tenant),
    mediaPath: `${MEDIA_CACHE_PATH}/${name}`,
    federationCaFiles: [],
    allowLocalFederation: config.allowLocalFederation,
    adminContact: config.adminContact,
    policy: environmentPolicy(config, name, hosts),
  };
}

function environmentPolicy(
  { tenantPolicy, allowLocalFederation }: KubernetesControllerConfig,
  tenant: string,
  hosts: readonly string[] = [],
): AssignmentPolicy {
  return policyFor(tenantPolicy, tenant, { destinations: allowLocalFederation ? PRIVATE_NETWORKS : [], hosts });
}

/** The tenant's URL for clients: its own word for it, or its server name. */
function urlOf(tenant: Tenant): string {
  const own = ownUrlOf(tenant);
  return own ?? platformUrlOf(tenant);
}

function platformUrlOf(tenant: Tenant): string {
  return `https://${tenant.spec.serverName}`;
}

try {
  await main();
} catch (error) {
  process.stderr.write(
    `controller: ${error instanceof UserError ? error.message : ((error as Error).stack ?? messageOf(error))}\n`,
  );
  process.exit(error instanceof UserError ? 2 : 1);
}
