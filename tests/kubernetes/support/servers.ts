/** The servers that tenants bring along: PostgreSQL and S3, as pods of the test's namespace. */

const SECURITY = { runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001, seccompProfile: { type: "RuntimeDefault" } };

/** Tests' servers are pods beside the shards, and tests themselves, with their Prometheus, are on the first node. */
export const TESTS = { ipBlock: { cidr: "10.244.0.1/32" } };
export const NETWORK = {
  networkPolicies: {
    servers: [
      { to: [{ podSelector: { matchExpressions: [{ key: "app", operator: "In", values: ["postgres", "s3"] }] } }] },
    ],
    apiFrom: [TESTS],
    metricsFrom: [TESTS],
  },
};

export const S3_ROOT = { access: "root", secret: "root-secret-1" };
export const POSTGRES_PASSWORD = "test";

/** Where a server's certificate is, as kubectl makes such a Secret. */
const TLS = { path: "/tls", certificate: "/tls/tls.crt", key: "/tls/tls.key" };

interface Where {
  node?: string | undefined;
  /** The Secret with its certificate; absent: it speaks no TLS. */
  tls?: string | undefined;
}

function server(
  name: string,
  image: string,
  port: number,
  { node, tls, ...more }: Where & { env?: object[]; args?: string[]; user: number; probe: object },
): object[] {
  return [
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, labels: { app: name } },
      spec: {
        automountServiceAccountToken: false,
        // They are nobody's who could make them again elsewhere.
        ...(node === undefined ? {} : { nodeSelector: { "kubernetes.io/hostname": node } }),
        terminationGracePeriodSeconds: 2,
        securityContext: { ...SECURITY, runAsUser: more.user, runAsGroup: more.user, fsGroup: more.user },
        containers: [
          {
            name,
            image,
            imagePullPolicy: "IfNotPresent",
            env: more.env ?? [],
            args: more.args ?? [],
            readinessProbe: { ...more.probe, periodSeconds: 1, failureThreshold: 60 },
            volumeMounts: [
              { name: "data", mountPath: "/data" },
              ...(tls === undefined ? [] : [{ name: "tls", mountPath: TLS.path, readOnly: true }]),
            ],
          },
        ],
        volumes: [
          { name: "data", emptyDir: {} },
          ...(tls === undefined ? [] : [{ name: "tls", secret: { secretName: tls, defaultMode: 0o440 } }]),
        ],
      },
    },
    { apiVersion: "v1", kind: "Service", metadata: { name }, spec: { selector: { app: name }, ports: [{ port }] } },
  ];
}

/** With a certificate it speaks TLS to those who ask for it. */
export function postgres({ node, tls }: Where = {}): object[] {
  const ssl = ["ssl=on", `ssl_cert_file=${TLS.certificate}`, `ssl_key_file=${TLS.key}`];
  return server("postgres", "synapse-shards-test/postgres:15", 5432, {
    user: 100,
    node,
    tls,
    args: tls === undefined ? [] : ssl.flatMap((setting) => ["-c", setting]),
    probe: { exec: { command: ["pg_isready", "--host=127.0.0.1"] } },
  });
}

/** With a certificate it speaks TLS only. */
export function s3({ node, tls }: Where = {}): object[] {
  return server("s3", "synapse-shards-test/versitygw:1.8.0", 7070, {
    user: 10001,
    node,
    tls,
    env: [
      { name: "ROOT_ACCESS_KEY", value: S3_ROOT.access },
      { name: "ROOT_SECRET_KEY", value: S3_ROOT.secret },
      ...(tls === undefined
        ? []
        : [
            { name: "VGW_CERT", value: TLS.certificate },
            { name: "VGW_KEY", value: TLS.key },
          ]),
    ],
    probe: { tcpSocket: { port: 7070 } },
  });
}
