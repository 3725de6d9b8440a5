#!/usr/bin/env node
// Writes the README.md of each chart from the comments of its values.yaml: `node charts/generate-readme.mjs [--check]`.
// `# -- text` above a key is its description; a `##` heading begins a section, `#` comments above a map describe it.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isMap, parse, parseDocument, stringify } from "yaml";

const CHARTS = import.meta.dirname;
const NAMES = ["synapse-shards", "matrix-stack", "synapse-tenant"];

/** What is Kubernetes' own, or the same everywhere, is described once. */
const COMMON = {
  affinity: "As in a pod's spec.",
  annotations: "Annotations of the object, or of its pods.",
  className: "Class of the Ingress.",
  containersSecurityContext: "Security context of the containers.",
  create: "Makes a service account; else `name` names an existing one.",
  digest: "A digest wins over the tag.",
  enabled: "Whether it is made.",
  extraEnv: "Further environment variables, as in a container's `env`.",
  interval: "Time between two scrapes.",
  labels: "Labels of the object, or of its pods.",
  livenessProbe: "Timing of the probe.",
  logLevel: "How much is logged.",
  maxUnavailable: "Of the pods, at once.",
  nodeSelector: "As in a pod's spec.",
  podSecurityContext: "Security context of the pods.",
  port: "Its port.",
  priorityClassName: "As in a pod's spec.",
  pullPolicy: "When the image is pulled.",
  readinessProbe: "Timing of the probe.",
  registry: "Registry of the image.",
  replicas: "Pods.",
  repository: "Repository of the image.",
  resources: "Requests and limits of the container.",
  startupProbe: "Timing of the probe.",
  tlsEnabled: "Whether the Ingress has TLS.",
  tlsSecret: "Secret with the certificate.",
  tolerations: "As in a pod's spec.",
  topologySpreadConstraints: "As in a pod's spec.",
};
/** Maps that are one value. */
const WHOLE = new Set([
  "containersSecurityContext",
  "podSecurityContext",
  "resources",
  "livenessProbe",
  "readinessProbe",
  "startupProbe",
  "topologySpreadConstraints",
]);

/** @returns the README's text */
export function readmeOf(chart) {
  const read = (file) => readFileSync(join(CHARTS, chart, file), "utf8");
  const { name, description, version } = parse(read("Chart.yaml"));
  const values = read("values.yaml");
  const rows = [];
  rowsOf(parseDocument(values).contents, "", rows);
  const lines = [
    `# ${name}`,
    "",
    `${description}.`,
    "",
    `Chart version ${version}.`,
    "",
    ...introductionOf(chart),
    "",
    "`values.schema.json` refuses wrong values. This page is generated from `values.yaml`:",
    "`node charts/generate-readme.mjs`.",
    "",
    "## Values",
    "",
    "| value | default | meaning |",
    "| --- | --- | --- |",
    ...rows.map(([path, value, text]) => `| \`${path}\` | ${value} | ${text} |`),
    "",
  ];
  return lines.join("\n");
}

function introductionOf(chart) {
  try {
    return readFileSync(join(CHARTS, chart, "README.head.md"), "utf8")
      .trimEnd()
      .split("\n");
  } catch {
    return [];
  }
}

/** A row for each value; a map that has a description of its own, or is empty, is one row. */
function rowsOf(map, prefix, rows) {
  for (const { key, value } of map.items) {
    const path = prefix + key.value;
    // What stands before the first key of a map belongs to the map, says the parser.
    const own = described(key) ?? (map.items[0].key === key ? described(map) : undefined);
    const text = own ?? COMMON[key.value];
    const whole = own !== undefined || WHOLE.has(key.value);
    if (isMap(value) && value.items.length > 0 && !whole) rowsOf(value, `${path}.`, rows);
    else rows.push([path, inline(value), text ?? ""]);
  }
}

function described(node) {
  const paragraphs = (node.commentBefore ?? "").split("\n");
  const start = paragraphs.findLastIndex((line) => line.startsWith(" -- "));
  if (start < 0) return undefined;
  return paragraphs.slice(start).join(" ").replace(/^ -- /, "").replaceAll("|", "\\|").replaceAll(/\s+/g, " ").trim();
}

function inline(node) {
  const value = node?.toJSON?.() ?? null;
  if (value === "" || value === null) return "";
  const text = stringify(value, { collectionStyle: "flow", lineWidth: 0 }).trim().replaceAll(/\s+/g, " ");
  return `\`${text.replaceAll("|", "\\|")}\``;
}

if (process.argv[1] === import.meta.filename) {
  const check = process.argv.includes("--check");
  for (const chart of NAMES) {
    const file = join(CHARTS, chart, "README.md");
    if (!check) writeFileSync(file, readmeOf(chart));
    else if (readFileSync(file, "utf8") !== readmeOf(chart)) {
      process.stderr.write(`${file} is not what values.yaml says; run node charts/generate-readme.mjs\n`);
      process.exitCode = 1;
    }
  }
}
