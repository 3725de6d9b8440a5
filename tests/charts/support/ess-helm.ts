import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parse } from "yaml";
import { render, type Manifest, type Values } from "./matrix-stack.ts";

export const COMPANION = resolve(import.meta.dirname, "../../../charts/synapse-tenant");
export const ESS_VALUES = parse(readFileSync(join(COMPANION, "ess-values.yaml"), "utf8")) as Values;

/** The chart ess-helm (its directory, an archive or an OCI reference), where there is one: CI pulls it, and what is recorded below is compared with it. */
export const ESS_HELM = process.env["ESS_HELM_CHART"] ?? "";

/** What an ess-helm user has in values files anyway. */
export const HOSTNAMES = {
  serverName: "example.org",
  certManager: { clusterIssuer: "letsencrypt" },
  elementAdmin: { ingress: { host: "admin.example.org" } },
  elementWeb: { ingress: { host: "chat.example.org" } },
  matrixAuthenticationService: { ingress: { host: "account.example.org" } },
  matrixRTC: { ingress: { host: "rtc.example.org" } },
  synapse: { ingress: { host: "matrix.example.org" } },
};

/** What the tenant needs beside. */
export const TENANT = {
  synapse: {
    asTenantHook: { clusterId: "synapse-shards", namespace: "shards" },
    postgres: {
      host: "postgres.example",
      user: "example",
      database: "example",
      password: { value: "database-secret" },
    },
    media: { s3: { bucket: "example", accessKeyId: { value: "key-id" }, secretAccessKey: { value: "bucket-secret" } } },
  },
};

/**
 * What of ess-helm 26.8 the companion relies on, with the release `ess` in the namespace `ess`. Recorded from what its chart renders, in our own
 * words; `tests/charts/synapse-tenant.test.ts` compares it with the chart itself where that can be had.
 */
export const CONTRACT = {
  homeserver: {
    /** The Service by which its components call the homeserver, and by what name and port. */
    service: "ess-synapse",
    port: 8008,
    endpoint: "http://ess-synapse.ess.svc.cluster.local:8008",
  },
  authentication: {
    service: "ess-matrix-authentication-service",
    port: { name: "http", number: 8080 },
    /** Secrets that its values name are directories below this, and their keys files. */
    secretsAt: "/secrets",
    kind: "synapse_modern",
    /** Of the homeserver's host, and lead to it instead. */
    paths: ["api/v1", "r0", "unstable", "v3"].flatMap((version) =>
      ["login", "logout", "refresh"].map((name) => `/_matrix/client/${version}/${name}`),
    ),
    /** What the homeserver has for it. */
    options: {
      matrix_authentication_service: {
        enabled: true,
        endpoint: "http://ess-matrix-authentication-service.ess.svc.cluster.local:8080/",
        force_http2: true,
      },
      password_config: { enabled: false, localdb_enabled: false },
    },
  },
  calls: {
    options: {
      matrix_rtc: { transports: [{ type: "livekit", livekit_service_url: "https://rtc.example.org" }] },
      experimental_features: { msc4143_enabled: true, msc4222_enabled: true },
    },
    variable: "LIVEKIT_CS_API_URL_OVERRIDES",
  },
  hookshot: {
    secret: "ess-generated",
    key: "HOOKSHOT_REGISTRATION",
    options: {
      experimental_features: {
        msc2409_to_device_messages_enabled: true,
        msc3202_device_masquerading: true,
        msc3202_transaction_extensions: true,
      },
    },
  },
} as const;

export const companion = (values: Values, args: string[] = []): Promise<Manifest[]> =>
  render({ chart: COMPANION, release: "ess-tenant", namespace: "ess", args }, values);
export const essHelm = (values: Values): Promise<Manifest[]> =>
  render({ chart: ESS_HELM, release: "ess", namespace: "ess" }, values);

/** A homeserver's options, as YAML says them; names within the cluster without the dot that ess-helm ends them with. */
export function plainNames(text: string): string {
  return text.replaceAll("cluster.local.", "cluster.local");
}
