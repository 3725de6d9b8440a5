import { existsSync } from "node:fs";
import { createConfiguration, KubeConfig, ServerConfiguration, type Configuration } from "@kubernetes/client-node";
import { messageOf, UserError } from "../../model/errors.ts";

export const API_GROUP = "synapse-shards.io";
export const API_VERSION = "v1alpha1";

/** Lists of thousands of objects take seconds; what takes longer hangs. */
const REQUEST_MS = 30_000;
const IN_CLUSTER_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/** How to reach the API server: from within a pod by its service account, elsewhere as kubectl does. @throws UserError Environment */
export function loadKubeConfig(): KubeConfig {
  const config = new KubeConfig();
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

/**
 * A client of one group of the API whose requests end: on a connection that died silently, the library's own would hold their caller up for
 * minutes.
 * @throws UserError Environment
 */
export function apiClient<T>(
  config: KubeConfig,
  Api: new (configuration: Configuration) => T,
  { timeoutMs = REQUEST_MS } = {},
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
            request.setSignal(AbortSignal.timeout(timeoutMs));
            return request;
          },
          post: async (response) => response,
        },
      ],
    }),
  );
}
