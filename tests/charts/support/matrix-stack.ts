import { execFile, spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { parseAllDocuments, stringify } from "yaml";

const run = promisify(execFile);

export const CHART = resolve(import.meta.dirname, "../../../charts/matrix-stack");
export const withoutHelm = spawnSync("helm", ["version"]).status !== 0;

export interface Manifest {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  spec?: any;
  rules?: { apiGroups: string[]; resources: string[]; resourceNames?: string[]; verbs: string[] }[];
  subjects?: object[];
  data?: Record<string, string>;
  type?: string;
}

export type Values = Record<string, unknown>;

/** The least a homeserver needs; a Job makes its keys. */
export const MINIMAL = {
  serverName: "clinic-a.example",
  synapse: {
    postgres: {
      host: "postgres.example",
      user: "synapse",
      database: "clinic_a",
      password: { value: "database-secret" },
    },
    ingress: { host: "matrix.clinic-a.example" },
    media: {
      s3: { bucket: "clinic-a", accessKeyId: { value: "key-id" }, secretAccessKey: { value: "bucket-secret" } },
    },
  },
};
export const KEYS = {
  signingKey: { value: "ed25519 a_test QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY" },
  macaroon: { value: "macaroon-secret" },
  registrationSharedSecret: { value: "registration-secret" },
  formSecret: { value: "form-secret" },
};
export const HOOK = { clusterId: "synapse-shards", namespace: "shards" };

/** Later values win, objects are merged, null removes: as with several `-f` of Helm. */
export function merged(...parts: Values[]): Values {
  const result: Values = {};
  for (const part of parts) {
    for (const [key, value] of Object.entries(part)) {
      const isMap = (x: unknown): x is Values => typeof x === "object" && x !== null && !Array.isArray(x);
      const before = result[key];
      result[key] = isMap(value) && isMap(before) ? merged(before, value) : value;
    }
  }
  return result;
}

/** Calls helm with values in a file. @returns its output @throws Error with what helm said */
export async function helm(args: string[], values: Values, env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "matrix-stack-"));
  try {
    const file = join(directory, "values.yaml");
    await writeFile(file, stringify(values), { mode: 0o600 });
    const { stdout } = await run("helm", [...args, "--values", file], { env, maxBuffer: 16 * 1024 * 1024 });
    return stdout;
  } catch (error) {
    const { stderr = "", stdout = "" } = error as { stderr?: string; stdout?: string };
    throw new Error(`${stderr}\n${stdout}`, { cause: error });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Renders the chart without a cluster. */
export function template(values: Values, args: string[] = []): Promise<Manifest[]> {
  return render({ chart: CHART, release: "clinic-a", namespace: "clinic-a", args }, values);
}

interface Rendering {
  chart: string;
  release: string;
  namespace: string;
  args?: string[];
}

/** Renders a chart without a cluster. */
export async function render({ chart, release, namespace, args = [] }: Rendering, values: Values): Promise<Manifest[]> {
  const text = await helm(["template", release, chart, "--namespace", namespace, ...args], values, {
    ...process.env,
    KUBECONFIG: "/dev/null",
  });
  return parseAllDocuments(text)
    .map((document) => document.toJS() as Manifest | null)
    .filter((manifest) => manifest !== null);
}

export function find(manifests: Manifest[], kind: string, name?: string): Manifest {
  const found = manifests.filter((m) => m.kind === kind && (name === undefined || m.metadata.name === name));
  if (found.length !== 1)
    throw new Error(
      `${found.length} of ${kind} ${name ?? ""} among ${manifests.map((m) => `${m.kind}/${m.metadata.name}`).join(", ")}`,
    );
  return found[0]!;
}

export function content(secret: Manifest, key: string): string {
  return Buffer.from(secret.data?.[key] ?? "", "base64").toString("utf8");
}
