import { CoreV1Api, CustomObjectsApi, type KubeConfig, type KubernetesListObject } from "@kubernetes/client-node";
import { attempt, attemptIfThere, retrying } from "./api-error.ts";
import { API_GROUP, API_VERSION, apiClient } from "./client.ts";
import { allPages } from "./list-and-watch.ts";
import { FINALIZER, PLURALS, type CustomKinds } from "./store/resources.ts";

/**
 * Lets a namespace that is being deleted end: nobody will be left to take the finalizers off its tenants and shards. Kubernetes ends the pods
 * of such a namespace first, so a controller that is told to stop still has its rights.
 * @returns whether the namespace is being deleted
 */
export async function releaseIfNamespaceEnds(
  config: KubeConfig,
  namespace: string,
  clusterId: string,
): Promise<boolean> {
  const found = await attempt(`read the namespace ${namespace}`, () =>
    // A controller that stops gives back its lease after this, so it does not wait for a turn.
    retrying(() => apiClient(config, CoreV1Api, { isUrgent: true }).readNamespace({ name: namespace })),
  );
  if (found.metadata?.deletionTimestamp === undefined) return false;
  const api = apiClient(config, CustomObjectsApi, { isUrgent: true });
  for (const plural of Object.values(PLURALS)) {
    const place = { group: API_GROUP, version: API_VERSION, namespace, plural };
    const { items } = await allPages(
      (page) =>
        api.listNamespacedCustomObject({ ...place, ...page }) as Promise<KubernetesListObject<CustomKinds["Tenant"]>>,
    );
    for (const { metadata = {} } of items.filter(({ spec }) => spec.clusterId === clusterId)) {
      if (!metadata.finalizers?.includes(FINALIZER)) continue;
      const name = metadata.name ?? "";
      await attemptIfThere(`release ${plural}/${name}`, () =>
        retrying(async () => {
          // Read again each time: its status may be written meanwhile.
          const object = (await api.getNamespacedCustomObject({ ...place, name })) as CustomKinds["Tenant"];
          const finalizers = (object.metadata?.finalizers ?? []).filter((finalizer) => finalizer !== FINALIZER);
          const body = { ...object, metadata: { ...object.metadata, finalizers } };
          return api.replaceNamespacedCustomObject({ ...place, name, body });
        }),
      );
    }
  }
  return true;
}
