/** The servers that tenants bring along: PostgreSQL and S3, as pods of the test's namespace. */

const SECURITY = { runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001, seccompProfile: { type: "RuntimeDefault" } };

/** Tests' servers are pods beside the shards, and tests themselves, with their Prometheus, are on the first node. */
const TESTS = { ipBlock: { cidr: "10.244.0.1/32" } };
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

function server(
  name: string,
  image: string,
  port: number,
  more: { env?: object[]; user: number; probe: object; node?: string | undefined },
): object[] {
  return [
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, labels: { app: name } },
      spec: {
        automountServiceAccountToken: false,
        // They are nobody's who could make them again elsewhere.
        ...(more.node === undefined ? {} : { nodeSelector: { "kubernetes.io/hostname": more.node } }),
        terminationGracePeriodSeconds: 2,
        securityContext: { ...SECURITY, runAsUser: more.user, runAsGroup: more.user, fsGroup: more.user },
        containers: [
          {
            name,
            image,
            imagePullPolicy: "IfNotPresent",
            env: more.env ?? [],
            readinessProbe: { ...more.probe, periodSeconds: 1, failureThreshold: 60 },
            volumeMounts: [{ name: "data", mountPath: "/data" }],
          },
        ],
        volumes: [{ name: "data", emptyDir: {} }],
      },
    },
    { apiVersion: "v1", kind: "Service", metadata: { name }, spec: { selector: { app: name }, ports: [{ port }] } },
  ];
}

export function postgres(node?: string): object[] {
  return server("postgres", "synapse-shards-test/postgres:15", 5432, {
    user: 100,
    node,
    probe: { exec: { command: ["pg_isready", "--host=127.0.0.1"] } },
  });
}

export function s3(node?: string): object[] {
  return server("s3", "synapse-shards-test/versitygw:1.8.0", 7070, {
    user: 10001,
    node,
    env: [
      { name: "ROOT_ACCESS_KEY", value: S3_ROOT.access },
      { name: "ROOT_SECRET_KEY", value: S3_ROOT.secret },
    ],
    probe: { tcpSocket: { port: 7070 } },
  });
}
