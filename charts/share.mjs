#!/usr/bin/env node
// Copies what the chart synapse-tenant shares with matrix-stack: `node charts/share.mjs [--check]`. A chart is a whole of its own when it is
// packaged, and installs from a checkout without a step before; Helm's library charts need one (`helm dependency build`).
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

const CHARTS = import.meta.dirname;
const FROM = "matrix-stack";
const TO = "synapse-tenant";
export const SHARED = [
  "files/init-secrets.py",
  "templates/_helpers.tpl",
  "templates/_homeserver.tpl",
  "templates/_routes.tpl",
  "templates/_secrets.tpl",
  "templates/init-secrets.yaml",
  "templates/synapse/secret.yaml",
  "templates/synapse/tenant.yaml",
  "templates/tests/connection.yaml",
];

/** @returns the files that are not as in matrix-stack */
export function unequal() {
  return SHARED.filter((file) => read(FROM, file) !== read(TO, file));
}

function read(chart, file) {
  try {
    return readFileSync(join(CHARTS, chart, file), "utf8");
  } catch {
    return undefined;
  }
}

if (process.argv[1] === import.meta.filename) {
  for (const file of unequal()) {
    const to = join(CHARTS, TO, file);
    if (process.argv.includes("--check")) {
      process.stderr.write(`${to} is not as in ${FROM}; run node charts/share.mjs\n`);
      process.exitCode = 1;
    } else {
      mkdirSync(dirname(to), { recursive: true });
      writeFileSync(to, read(FROM, file));
    }
  }
}
