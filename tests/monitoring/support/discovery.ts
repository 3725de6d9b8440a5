import { rename, writeFile } from "node:fs/promises";
import type { Installation } from "./kubernetes.ts";

/** What is used of a ServiceMonitor or PodMonitor. */
export interface Monitor {
  kind: string;
  spec?: any;
}

interface Relabeling {
  sourceLabels?: string[];
  targetLabel: string;
  replacement?: string;
}

interface TargetGroup {
  targets: string[];
  labels: Record<string, string>;
}

interface Labelled {
  metadata: { name: string; labels?: Record<string, string> };
}

interface Pod extends Labelled {
  spec: { containers: { ports?: { name?: string; containerPort: number }[] }[] };
  status: { podIP?: string };
}

interface EndpointSlice extends Labelled {
  ports: { name: string; port: number }[];
  endpoints: { addresses: string[]; targetRef?: { name: string } }[] | null;
}

/** How the Prometheus Operator would have Prometheus scrape what the monitors choose, with targets from a file. */
export function scrapeConfigs(monitors: Monitor[], file: string): object[] {
  return monitors.map(({ kind, spec }, index) => {
    const ofPods = kind === "PodMonitor";
    const endpoints = (ofPods ? spec.podMetricsEndpoints : spec.endpoints) as {
      port: string;
      relabelings: Relabeling[];
    }[];
    const [{ port, relabelings }] = endpoints as [{ port: string; relabelings: Relabeling[] }];
    const object = ofPods ? "pod" : "service";
    const chosen = Object.entries(spec.selector.matchLabels as Record<string, string>);
    return {
      job_name: `${object}-${index}`,
      file_sd_configs: [{ files: [file], refresh_interval: "1s" }],
      relabel_configs: [
        keep("__meta_role", ofPods ? "pod" : "endpoints"),
        ...chosen.map(([name, value]) => keep(metaLabel(object, name), value)),
        keep(ofPods ? "__meta_kubernetes_pod_container_port_name" : "__meta_kubernetes_endpoint_port_name", port),
        { source_labels: ["__meta_kubernetes_namespace"], target_label: "namespace" },
        { source_labels: ["__meta_kubernetes_pod_name"], target_label: "pod" },
        ...relabelings.map(({ sourceLabels, targetLabel, replacement }) => ({
          ...(sourceLabels ? { source_labels: sourceLabels } : {}),
          target_label: targetLabel,
          ...(replacement === undefined ? {} : { replacement }),
        })),
      ],
    };
  });
}

/** Writes the namespace's targets with the labels of Prometheus' own Kubernetes discovery, which Debian's package is built without. */
export async function discover(installation: Installation, file: string): Promise<void> {
  const read = async <T>(kind: string) =>
    (JSON.parse(await installation.kubectl("get", kind, "-o", "json")) as { items: T[] }).items;
  const [pods, services] = [await read<Pod>("pods"), await read<Labelled>("services")];
  const slices = await read<EndpointSlice>("endpointslices");
  const groups = [
    ...pods.flatMap((pod) => ofPod(pod)),
    ...slices.flatMap((slice) => {
      const service = services.find(
        ({ metadata }) => metadata.name === slice.metadata.labels?.["kubernetes.io/service-name"],
      );
      return service ? ofService(service, slice) : [];
    }),
  ];
  for (const { labels } of groups) labels["__meta_kubernetes_namespace"] = installation.namespace;
  // At once: Prometheus may look at any time.
  await writeFile(`${file}.new`, JSON.stringify(groups));
  await rename(`${file}.new`, file);
}

function ofPod({ metadata, spec, status }: Pod): TargetGroup[] {
  const ports = spec.containers.flatMap((container) => container.ports ?? []);
  return ports.map(({ name = "", containerPort }) => ({
    targets: [`${status.podIP}:${containerPort}`],
    labels: {
      __meta_role: "pod",
      __meta_kubernetes_pod_name: metadata.name,
      __meta_kubernetes_pod_container_port_name: name,
      ...metaLabels("pod", metadata.labels),
    },
  }));
}

function ofService({ metadata }: Labelled, { ports, endpoints }: EndpointSlice): TargetGroup[] {
  return (endpoints ?? []).flatMap(({ addresses, targetRef }) =>
    ports.map(({ name, port }) => ({
      targets: [`${addresses[0]}:${port}`],
      labels: {
        __meta_role: "endpoints",
        __meta_kubernetes_pod_name: targetRef?.name ?? "",
        __meta_kubernetes_endpoint_port_name: name,
        ...metaLabels("service", metadata.labels),
      },
    })),
  );
}

function metaLabels(object: string, labels: Record<string, string> = {}): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).map(([name, value]) => [metaLabel(object, name), value]));
}

function metaLabel(object: string, name: string): string {
  return `__meta_kubernetes_${object}_label_${name.replaceAll(/[^a-zA-Z0-9_]/g, "_")}`;
}

function keep(label: string, value: string): object {
  return { source_labels: [label], regex: value.replaceAll(".", "\\."), action: "keep" };
}
