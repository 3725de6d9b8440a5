import { join, relative, resolve } from "node:path";
import { type ClusterConfig, ClusterConfigSchema } from "../../../model/cluster-config.ts";
import { giveMemoryBackWhenIdle } from "../../../memory/idle-memory.ts";
import { messageOf } from "../../../model/errors.ts";
import { readConfigFile } from "../../../model/config-file.ts";
import { ensureDemo } from "./demo.ts";
import { pathsIn, prepareDataDirectory } from "../data-directory.ts";
import { cleanOwnEnvironment } from "../environment.ts";
import { ensureSecret } from "../files.ts";
import { LocalCluster } from "./local-cluster.ts";
import { lockDataDirectory } from "./lock.ts";
import { Steps } from "./steps.ts";
import { summary } from "./summary.ts";
import { quoted } from "../../../model/shell.ts";
import { ROOT } from "../../../model/project.ts";

/** npm passes a Ctrl-C on that the terminal has sent to everybody already: two signals, one press. */
const SAME_PRESS_MS = 1_000;
const INTERRUPTED = 130;
/** Releases to try an upgrade or a way back with. */
const OTHER_VERSIONS = ["1.157.2", "1.163.2"];
const STOP_SIGNALS = ["SIGINT", "SIGTERM"] as const;

export interface UpOptions {
  configFile?: string;
  dataDir: string;
  demo: boolean;
  /** Puts the copy of the store back where the store is lost or damaged. */
  recover: boolean;
}

/**
 * Runs a cluster in the foreground until a signal asks for its end, and stops it in order then; resolves after that. A second
 * signal stops at once.
 * @throws UserError for everything that keeps it from coming up; nothing is left running
 */
export async function runUp(options: UpOptions): Promise<void> {
  cleanOwnEnvironment();
  const config = await configIn(options.configFile);
  // Whatever any part writes is for this user alone.
  process.umask(0o077);
  // A terminal that has been closed must not keep us from stopping in order.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  const dataDir = resolve(options.dataDir);
  const paths = prepareDataDirectory(dataDir);
  const lock = lockDataDirectory(dataDir);
  const steps = new Steps();
  const cluster = new LocalCluster({ dataDir, paths, config, steps, recover: options.recover });
  const kill = () => {
    steps.line("Stopping at once");
    void cluster.kill().finally(() => process.exit(INTERRUPTED));
  };
  const interrupt = listen(kill, () => void reload(cluster, options, steps));
  try {
    await cluster.start(interrupt.signal);
    giveMemoryBackWhenIdle();
    process.stdout.write(await welcome({ demo: options.demo, dataDir, config }, cluster, steps, interrupt.signal));
    await aborted(interrupt.signal);
    steps.line("\nStopping; once more to stop at once");
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    process.exitCode = INTERRUPTED;
    steps.line("\nInterrupted");
  } finally {
    await cluster.stop();
    lock.release();
    interrupt.close();
  }
}

async function reload(cluster: LocalCluster, { configFile }: UpOptions, steps: Steps): Promise<void> {
  try {
    const later = cluster.reload(await configIn(configFile));
    steps.line(`Reloaded${later.length > 0 ? `; at the next start: ${later.join(", ")}` : ""}`);
  } catch (error) {
    steps.line(`Not reloaded: ${messageOf(error)}`);
  }
}

function configIn(file: string | undefined): Promise<ClusterConfig> {
  return file ? readConfigFile(file, ClusterConfigSchema) : Promise.resolve(ClusterConfigSchema.parse({}));
}

async function welcome(
  { demo, dataDir, config }: { demo: boolean; dataDir: string; config: ClusterConfig },
  cluster: LocalCluster,
  steps: Steps,
  signal: AbortSignal,
): Promise<string> {
  const paths = pathsIn(dataDir);
  const password = demo ? ensureSecret(paths.demoPassword, 12) : "";
  const tenants = demo
    ? await steps.run("Example tenants", (onProgress) =>
        ensureDemo(cluster.api, { password, record: paths.demoRecord }, { onProgress, signal }),
      )
    : [];
  return summary({
    apiUrl: cluster.apiUrl,
    httpUrl: cluster.gatewayUrls.http,
    httpsUrl: cluster.gatewayUrls.https,
    dataDir: shown(dataDir),
    shardsDir: shown(paths.shards),
    caFile: shown(join(dataDir, "ca.crt")),
    release: config.release,
    otherVersion: OTHER_VERSIONS.find((version) => version !== config.release)!,
    command:
      dataDir === join(ROOT, "data") ? "npx synapse-shards" : `npx synapse-shards --data ${quoted(shown(dataDir))}`,
    ...(demo
      ? {
          demo: {
            tenants,
            passwordFile: shown(paths.demoPassword),
            password: process.stdout.isTTY ? password : undefined,
          },
        }
      : {}),
  });
}

/** A path as a person in this directory would type it. */
function shown(path: string): string {
  const short = relative(process.cwd(), path);
  return short.startsWith("..") ? path : short || ".";
}

/** The first signal aborts, a second one forces; the end of a process that started us counts as a signal. */
function listen(force: () => void, reload: () => void): { signal: AbortSignal; close(): void } {
  const controller = new AbortController();
  let first = 0;
  const onSignal = () => {
    if (first === 0) {
      first = Date.now();
      controller.abort();
    } else if (Date.now() - first > SAME_PRESS_MS) {
      force();
    }
  };
  const onParentGone = () => {
    if (!controller.signal.aborted) onSignal();
  };
  for (const name of STOP_SIGNALS) process.on(name, onSignal);
  // At a terminal it says that the terminal is gone; to a service, and after nohup, that logs were moved or the configuration changed.
  const onHangUp = atTerminal() ? onSignal : reload;
  process.on("SIGHUP", onHangUp);
  process.on("disconnect", onParentGone);
  process.channel?.unref();
  const close = () => {
    for (const name of STOP_SIGNALS) process.off(name, onSignal);
    process.off("SIGHUP", onHangUp);
    process.off("disconnect", onParentGone);
  };
  return { signal: controller.signal, close };
}

function atTerminal(): boolean {
  return process.stdout.isTTY || process.stderr.isTTY;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) done();
    else signal.addEventListener("abort", () => done(), { once: true });
  });
}
