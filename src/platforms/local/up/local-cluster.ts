import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { LocalLauncher } from "../launcher/local-launcher.ts";
import type { ClusterConfig } from "../../../model/cluster-config.ts";
import { tenantDatabaseName } from "../../../database/names.ts";
import { listTenantDatabases } from "../../../database/tenant-database.ts";
import { OWN_SERVER } from "../../../model/database-servers.ts";
import { messageOf, UserError } from "../../../model/errors.ts";
import { checkAgainstDatabases, removeOldStores, restoreStore } from "../store/store-file.ts";
import { databaseServers } from "../database-servers.ts";
import { ensureAuthority, type AuthorityFiles } from "../certificates.ts";
import { prepareConsole } from "./console.ts";
import { choosePorts, type ClusterPorts } from "./cluster-ports.ts";
import { LogKeeper, logsToKeep } from "./log-keeper.ts";
import {
  controllerConfig,
  gatewayConfig,
  settingsForNextStart,
  withFixedSettings,
  type ClusterFacts,
} from "./part-configs.ts";
import { ControllerApi } from "./controller-api.ts";
import type { DataPaths } from "../data-directory.ts";
import { ensureSecret, rotateIfLarge, writeAtomically } from "../files.ts";
import { endLeftovers, endProcess, type NodeProcessOptions, sendSignal, startNode } from "./node-process.ts";
import { startPostgres, type RunningPostgres } from "../postgres/postgres.ts";
import type { Steps } from "./steps.ts";
import { Standby } from "./standby.ts";
import { Supervisor, type Running } from "./supervisor.ts";
import { TenantModules } from "../toolchain/tenant-modules.ts";
import { ensurePostgres, ensureSynapse } from "../toolchain/toolchain.ts";
import { ROOT } from "../../../model/project.ts";

const DAY_MS = 86_400_000;
/** What is in flight in the gateway gets its answer. */
const GATEWAY_STOP_MS = 30_000;
/** Shards drain their tenants at once; each is bounded by the controller, and this is above that bound. */
const CONTROLLER_STOP_MS = 60_000;
const SHARD_STOP_SECONDS = 20;

/** The parts of a cluster on one machine, in the order in which they need each other. */
export class LocalCluster {
  readonly #dataDir: string;
  readonly #paths: DataPaths;
  #config: ClusterConfig;
  readonly #logs: LogKeeper;
  readonly #steps: Steps;
  readonly #recover: boolean;
  #database: RunningPostgres | undefined;
  #postgres: Supervisor | undefined;
  #controller: Supervisor | undefined;
  #gateway: Supervisor | undefined;
  #standby: Standby | undefined;
  #ports: ClusterPorts | undefined;
  #authority: AuthorityFiles | undefined;
  #api: ControllerApi | undefined;

  constructor(options: {
    dataDir: string;
    paths: DataPaths;
    config: ClusterConfig;
    steps: Steps;
    /** Puts the copy of the store back where the store is lost or damaged. */
    recover: boolean;
  }) {
    this.#dataDir = options.dataDir;
    this.#paths = options.paths;
    this.#config = options.config;
    this.#steps = options.steps;
    this.#recover = options.recover;
    this.#logs = new LogKeeper(() => logsToKeep(this.#dataDir, this.#paths.shards));
  }

  /** Starts all parts. Rejects with what went wrong; `stop` then ends those that were started. */
  async start(signal: AbortSignal): Promise<void> {
    const paths = this.#paths;
    const steps = this.#steps;
    // Before anything slow: a port that is taken, or what a killed predecessor left, is known at once.
    await endLeftovers(paths.gatewayConfig);
    await endLeftovers(paths.controllerConfig);
    this.#ports = await choosePorts(this.#config, paths.ports);
    const { release } = this.#config;
    const { python } = await steps.run(`Synapse ${release}`, (onProgress) =>
      ensureSynapse(release, { onProgress, signal }),
    );
    await this.#installModules(release, python, signal);
    const { binDir } = await steps.run("PostgreSQL's programs", (onProgress) => ensurePostgres({ onProgress, signal }));
    await this.#renewAuthority();
    // For a cluster that runs for longer than its authority is valid.
    setInterval(
      () => void this.#renewAuthority().catch((error: unknown) => steps.line(messageOf(error))),
      DAY_MS,
    ).unref();
    await steps.run("PostgreSQL", (onProgress) => this.#startPostgres(binDir, onProgress, signal));
    await this.#checkStore();
    const problem = await steps.run("Console", () => prepareConsole());
    if (problem !== undefined) steps.line(problem);
    await steps.run("Controller", () => this.#startController(signal));
    await steps.run("Gateway", () => this.#startGateway(signal));
    writeAtomically(
      paths.cluster,
      JSON.stringify({ apiUrl: this.apiUrl, tokenFile: paths.apiToken, gateway: this.gatewayUrls, pid: process.pid }),
    );
  }

  /** Here, so that who starts the cluster sees what is wrong with them; the controller installs them for other releases. */
  async #installModules(release: string, python: string, signal: AbortSignal): Promise<void> {
    const { modules } = this.#config;
    const installed = new TenantModules(join(this.#dataDir, "modules"), modules);
    if (modules.length === 0) return installed.install(release, python);
    await this.#steps.run("Modules", (onProgress) => installed.install(release, python, { onProgress, signal }));
  }

  /** Reopens logs and takes up what a running cluster can of a configuration. @returns the settings that take effect at the next start */
  reload(config: ClusterConfig): string[] {
    const later = settingsForNextStart(this.#config, config);
    this.#config = withFixedSettings(this.#config, config);
    if (this.#database && this.#ports) {
      writeConfig(this.#paths.controllerConfig, controllerConfig(this.#config, this.#facts()));
      writeConfig(this.#paths.gatewayConfig, gatewayConfig(this.#config, this.#facts()));
    }
    for (const part of [this.#controller, this.#gateway, this.#postgres])
      if (part?.running) sendSignal(part.running.pid, "SIGHUP");
    return later;
  }

  #facts(): ClusterFacts {
    return {
      dataDir: this.#dataDir,
      paths: this.#paths,
      ports: this.#ports!,
      database: this.#database!,
      authority: this.#authority!,
      apiUrl: this.apiUrl,
      gatewayUrls: this.gatewayUrls,
    };
  }

  get api(): ControllerApi {
    if (!this.#api) throw new Error("the controller has not been started");
    return this.#api;
  }

  get apiUrl(): string {
    return `http://${bracketed(this.#config.api.host)}:${this.#ports?.api}`;
  }

  /** For clients; any tenant's host name takes the place of localhost. */
  get gatewayUrls(): { http: string; https: string } {
    return { http: `http://localhost:${this.#ports?.http}`, https: `https://localhost:${this.#ports?.https}` };
  }

  /** Ends all parts in the opposite order, each bounded; what is not there is skipped. */
  async stop(): Promise<void> {
    const steps = this.#steps;
    this.#standby?.close();
    const gateway = await this.#gateway?.release();
    if (gateway)
      await steps.run("Stopping the gateway", () =>
        endProcess(gateway, GATEWAY_STOP_MS, () => sendSignal(gateway.pid, "SIGTERM")),
      );
    if (this.#controller) await steps.run("Stopping the shards and the controller", () => this.#stopController());
    await this.#postgres?.release();
    const database = this.#database;
    if (database) await steps.run("Stopping PostgreSQL", (onProgress) => database.stop(onProgress));
    rmSync(this.#paths.cluster, { force: true });
    this.#logs.stop();
    await this.#api?.close();
  }

  /** Ends all at once: nothing is drained. What was acknowledged is in the database. */
  async kill(): Promise<void> {
    this.#standby?.close();
    for (const part of [this.#gateway, this.#controller]) if (part?.running) sendSignal(part.running.pid, "SIGKILL");
    await Promise.all(this.#shards().map((shard) => this.#launcher().kill(shard)));
    if (this.#database) sendSignal(this.#database.pid, "SIGQUIT");
    rmSync(this.#paths.cluster, { force: true });
  }

  async #renewAuthority(): Promise<void> {
    const { baseDomain, gateway } = this.#config;
    this.#authority = await ensureAuthority(this.#dataDir, [baseDomain, ...gateway.certificateDomains]);
  }

  async #startPostgres(binDir: string, onProgress: (step: string) => void, signal: AbortSignal): Promise<void> {
    const paths = this.#paths;
    const launch = async (port?: number, report?: (step: string) => void, abort?: AbortSignal): Promise<Running> => {
      const options = {
        dataDir: paths.postgres,
        passwordFile: paths.postgresPassword,
        binDir,
        logFile: paths.log("postgres"),
        port,
      };
      this.#database = await startPostgres({ ...options, onProgress: report, signal: abort });
      return { pid: this.#database.pid, ended: this.#database.ended.then(() => "its log says why") };
    };
    this.#postgres = this.#supervisor("PostgreSQL", (abort) =>
      // Once the parts know its port, it must come back on the same.
      this.#database ? launch(this.#database.port, undefined, abort) : launch(undefined, onProgress, abort),
    );
    await this.#postgres.start(signal);
  }

  /** A store that lacks what PostgreSQL has must not be filled again. */
  async #checkStore(): Promise<void> {
    const { host, port, adminUser: user, adminPassword: password } = this.#database!;
    const servers = databaseServers({ host, port, user, password }, this.#config.databaseServers);
    const databases: string[] = [];
    for (const { name, login } of servers.all)
      try {
        databases.push(...(await listTenantDatabases(login)));
      } catch (error) {
        if (name === OWN_SERVER) throw error;
        this.#steps.line(`The databases of ${name} are not compared with the store: ${messageOf(error)}`);
      }
    const check = () => checkAgainstDatabases(this.#paths.store, databases, tenantDatabaseName);
    if (!this.#recover) return check();
    try {
      check();
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      const { from, formerStore } = restoreStore(this.#paths.store);
      removeOldStores(this.#dataDir);
      this.#steps.line(
        `Restored the store from ${from}${formerStore ? `; the former one is kept as ${formerStore}` : ""}`,
      );
      return check();
    }
    this.#steps.line("The store is sound and knows every tenant: nothing to recover");
  }

  async #startController(signal: AbortSignal): Promise<void> {
    const paths = this.#paths;
    const apiToken = ensureSecret(paths.apiToken);
    ensureSecret(paths.gatewayToken);
    writeConfig(paths.controllerConfig, controllerConfig(this.#config, this.#facts()));
    this.#controller = this.#supervisor("the controller", (abort) =>
      this.#startNode(
        "the controller",
        "controller",
        ["src/platforms/local/controller-main.ts"],
        paths.controllerConfig,
        paths.controllerReady,
        abort,
      ),
    );
    await this.#controller.start(signal);
    this.#api = new ControllerApi(this.apiUrl, apiToken);
  }

  /** Clients would notice the time that a program takes to load, so a second one has done that. */
  async #startGateway(signal: AbortSignal): Promise<void> {
    const paths = this.#paths;
    writeConfig(paths.gatewayConfig, gatewayConfig(this.#config, this.#facts()));
    const program = ["--import", join(ROOT, "src/platforms/local/up/end-with-parent.ts"), "src/gateway/main.ts"];
    const title = "the gateway";
    const standby = new Standby(this.#nodeProcess(title, "gateway", program, paths.gatewayConfig, paths.gatewayReady));
    this.#standby = standby;
    this.#gateway = new Supervisor({
      title,
      launch: (abort) => {
        rotateIfLarge(paths.log("gateway"));
        return standby.launch(abort);
      },
      onLine: (line) => this.#steps.line(line),
      isAtHand: () => standby.isReady,
    });
    await this.#gateway.start(signal);
  }

  #startNode(
    title: string,
    name: string,
    program: string[],
    configFile: string,
    readyFile: string,
    signal: AbortSignal,
  ): Promise<Running> {
    rotateIfLarge(this.#paths.log(name));
    return startNode({ ...this.#nodeProcess(title, name, program, configFile, readyFile), signal });
  }

  #nodeProcess(
    title: string,
    name: string,
    program: string[],
    configFile: string,
    readyFile: string,
  ): Omit<NodeProcessOptions, "signal"> {
    const args = [
      ...program.map((part) => (part.startsWith("src/") ? join(ROOT, part) : part)),
      "--config",
      configFile,
    ];
    return { title, args, readyFile, outputFile: this.#paths.log(`${name}.output`) };
  }

  #supervisor(title: string, launch: (signal: AbortSignal) => Promise<Running>): Supervisor {
    return new Supervisor({ title, launch, onLine: (line) => this.#steps.line(line) });
  }

  /** The controller stops the shards, since it knows them; were it dead, their processes are stopped by what is on disk. */
  async #stopController(): Promise<void> {
    const running = await this.#controller?.release();
    if (running) {
      await endProcess(running, CONTROLLER_STOP_MS, async () => {
        await this.api.call("POST", "/v1/shutdown").catch((error: unknown) => {
          this.#steps.line(`the controller does not take part in the stop (${messageOf(error)})`);
          sendSignal(running.pid, "SIGTERM");
        });
      });
    }
    await Promise.all(this.#shards().map((shard) => this.#launcher().stop(shard, SHARD_STOP_SECONDS)));
  }

  #shards(): string[] {
    try {
      return readdirSync(this.#paths.shards);
    } catch {
      return [];
    }
  }

  #launcher(): LocalLauncher {
    return new LocalLauncher({
      directory: this.#paths.shards,
      runtimePath: ROOT,
      installSynapse: (version, onProgress) => ensureSynapse(version, { onProgress }),
    });
  }
}

function writeConfig(file: string, config: object): void {
  writeAtomically(file, JSON.stringify(config, null, 2));
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
