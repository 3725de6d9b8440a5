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
import { Places } from "./places.ts";

export const API_GROUP = "synapse-shards.io";
export const API_VERSION = "v1alpha1";

/** Lists of thousands of objects take seconds; what takes longer hangs. */
const REQUEST_MS = 30_000;
/**
 * Requests that are under way at once, by all clients except the leader election's. A leader that has just read 4,000 shards wants all their Secrets:
 * asked for at once, they would hold up the renewal of its lease.
 */
const AT_ONCE = 32;
/** Certificate and CA files may have been replaced by then. */
const SHARED_MS = 300_000;
/** Longer than a burst takes; where the API server answers nobody, its callers hear of it. */
const WAIT_MS = 60_000;
const IN_CLUSTER_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token";

type Dispatcher = NonNullable<ReturnType<RequestContext["getDispatcher"]>>;
type DispatcherOptions = ReturnType<KubeConfig["createDispatcherOptions"]>;

const HTTP_1 = { allowH2: false };

/** Keeps connections: the library's own makes one, with its TLS handshake, for each request. */
class ConnectedKubeConfig extends KubeConfig {
  #shared: { dispatcher: Dispatcher; until: number } | undefined;

  /**
   * With HTTP/2, all requests would share one connection: where that dies silently, each of them would wait for its own end in vain, and the next
   * ones as well. With HTTP/1.1, one that is given up takes its connection along.
   */
  override createDispatcherOptions(...given: Parameters<KubeConfig["createDispatcherOptions"]>): DispatcherOptions {
    const options = super.createDispatcherOptions(...given);
    return options.type === "agent" ? { ...options, connect: { ...options.connect, ...HTTP_1 } } : options;
  }

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
          if (!isUrgent) await turns.take(WAIT_MS);
          try {
            // The time that it waited for its turn is not the API server's.
            request.setSignal(AbortSignal.timeout(timeoutMs));
            const response = await http.send(request).toPromise();
            // It is under way until all of its answer is there.
            const text = await response.body.text();
            Object.assign(response.body, { text: async () => text });
            return response;
          } finally {
            if (!isUrgent) turns.give();
          }
        },
      }),
    }),
  );
}
