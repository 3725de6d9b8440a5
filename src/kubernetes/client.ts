import { existsSync } from "node:fs";
import { KubeConfig } from "@kubernetes/client-node";
import { messageOf, UserError } from "../model/errors.ts";

export const API_GROUP = "synapse-shards.io";
export const API_VERSION = "v1alpha1";

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
