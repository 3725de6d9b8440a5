import { gunzipSync, gzipSync } from "node:zlib";
import { CoreV1Api, type KubeConfig, type V1Secret } from "@kubernetes/client-node";
import { attempt } from "./api-error.ts";
import { apiClient } from "./client.ts";

/**
 * Marks a release as deployed again whose uninstallation was refused. Helm has marked it as being uninstalled by the time it runs the hook
 * that refuses, leaves it so, and upgrades only what is deployed.
 * @returns whether it could: not where Helm keeps its releases elsewhere
 */
export async function markDeployed(config: KubeConfig, namespace: string, release: string): Promise<boolean> {
  const api = apiClient(config, CoreV1Api);
  const labelSelector = `owner=helm,name=${release},status=uninstalling`;
  const { items } = await attempt("read Helm's release", () => api.listNamespacedSecret({ namespace, labelSelector }));
  const newest = items.toSorted((a, b) => revisionOf(b) - revisionOf(a))[0];
  const name = newest?.metadata?.name;
  if (!newest || name === undefined) return false;
  await attempt("restore Helm's release", () =>
    api.replaceNamespacedSecret({ namespace, name, body: asDeployed(newest) }),
  );
  return true;
}

function revisionOf({ metadata }: V1Secret): number {
  return Number(metadata?.labels?.["version"] ?? 0);
}

/** Helm's format: base64 of gzip of JSON, in a Secret, which adds its own base64. */
export function asDeployed(secret: V1Secret): V1Secret {
  const packed = Buffer.from(secret.data?.["release"] ?? "", "base64").toString("utf8");
  const record = JSON.parse(gunzipSync(Buffer.from(packed, "base64")).toString("utf8")) as { info: object };
  const info = { ...record.info, status: "deployed", deleted: "" };
  const repacked = gzipSync(JSON.stringify({ ...record, info })).toString("base64");
  return {
    ...secret,
    metadata: { ...secret.metadata, labels: { ...secret.metadata?.labels, status: "deployed" } },
    data: { ...secret.data, release: Buffer.from(repacked).toString("base64") },
  };
}
