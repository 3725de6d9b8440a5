import { existsSync } from "node:fs";
import {
  createConfiguration,
  IsomorphicFetchHttpLibrary,
  KubeConfig,
  ServerConfiguration,
  wrapHttpLibrary,
  type Configuration,
  type RequestContext,
} from "@kubernetes/client-node";
import { messageOf, UserError } from "../../model/errors.ts";

export const API_GROUP = "synapse-shards.io";
export const API_VERSION = "v1alpha1";

/** Lists of thousands of objects take seconds; what takes longer hangs. */
const REQUEST_MS = 30_000;
/**
 * Requests that are under way at once, of all clients but those of a `LeaderElection`. A leader that has just read 4,000 shards wants all their Secrets:
 * asked for at once, they would hold up the renewal of its lease.
 */
const AT_ONCE = 32;
/** Certificates and authorities that are files may be others by then. */
const SHARED_MS = 300_000;
const IN_CLUSTER_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token";

type Dispatcher = NonNullable<ReturnType<RequestContext["getDispatcher"]>>;

/** Keeps connections: the library's own makes one, with its TLS handshake, for each request. */
class ConnectedKubeConfig extends KubeConfig {
  #shared: { dispatcher: Dispatcher; until: number } | undefined;

  override async applySecurityAuthentication(context: RequestContext): Promise<void> {
    await super.applySecurityAuthentication(context);
    const made = context.getDispatcher();
    if (made === undefined) return;
    // The former one is not closed: somebody may have it in hand. Without requests, its connections end by themselves.
    if (this.#shared === undefined || performance.now() >= this.#shared.until)
      this.#shared = { dispatcher: made, until: performance.now() + SHARED_MS };
    context.setDispatcher(this.#shared.dispatcher);
  }
}

/** How to reach the API server: from within a pod by its service account, elsewhere as kubectl does. @throws UserError Environment */
export function loadKubeConfig(): KubeConfig {
  const config = new ConnectedKubeConfig();
  try {
    if (process.env["KUBECONFIG"] === undefined && existsSync(IN_CLUSTER_TOKEN)) config.loadFromCluster();
    else config.loadFromDefault();
  } catch (error) {
    throw new UserError("Environment", `cannot find out how to reach Kubernetes: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return config;
}

const http = new IsomorphicFetchHttpLibrary();

/** Lets a number through at a time, in order. */
class Places {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async take(): Promise<void> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((go) => this.#waiting.push(go));
  }

  give(): void {
    const go = this.#waiting.shift();
    if (go) go();
    else this.#free += 1;
  }
}

/** Of this process: it has one API server. */
const turns = new Places(AT_ONCE);

/**
 * A client of one group of the API whose requests end: on a connection that died silently, the library's own would hold their caller up for
 * minutes.
 * @throws UserError Environment
 */
export function apiClient<T>(
  config: KubeConfig,
  Api: new (configuration: Configuration) => T,
  { timeoutMs = REQUEST_MS, isUrgent = false } = {},
): T {
  const cluster = config.getCurrentCluster();
  if (!cluster) throw new UserError("Environment", "the kubeconfig has no current context with a cluster");
  return new Api(
    createConfiguration({
      baseServer: new ServerConfiguration(cluster.server, {}),
      authMethods: { default: config },
      promiseMiddleware: [
        {
          pre: async (request) => {
            request.setHeaderParam("User-Agent", "synapse-shards");
            return request;
          },
          post: async (response) => response,
        },
      ],
      httpApi: wrapHttpLibrary({
        send: async (request) => {
          if (!isUrgent) await turns.take();
          try {
            // The time that it waited for its turn is not the API server's.
            request.setSignal(AbortSignal.timeout(timeoutMs));
            return await http.send(request).toPromise();
          } finally {
            if (!isUrgent) turns.give();
          }
        },
      }),
    }),
  );
}
