import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { parse } from "yaml";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

const URL = "http://127.0.0.1:8090";

let cluster: ClusterUnderTest;
beforeEach(async () => {
  cluster = await startClusterUnderTest();
});
afterEach(() => cluster.close());

interface Section {
  matrix: { homeserver: string; endpoint: string; secret: string };
}

test("tenant create --mas has the configuration and the route, and prints what belongs into the service's own", async () => {
  const config = ["--config", "-"];
  const created = await cluster.cli(["tenant", "create", "clinic-a", "--mas", URL, ...config], {
    stdin: "# ours\nenable_registration: false\npassword_config: {policy: {enabled: true}}\n",
  });
  expect(created).toMatchObject({ code: 0, stderr: "" });
  const { spec } = cluster.service.tenants.get("clinic-a")!;
  expect(spec.authenticationService).toBe(URL);
  expect(spec.config).toContain("# ours\nenable_registration: false\n");
  const { matrix } = parse(created.stdout.slice(0, created.stdout.indexOf("tenant clinic-a"))) as Section;
  expect(parse(spec.config)).toMatchObject({
    matrix_authentication_service: { enabled: true, endpoint: URL, secret: matrix.secret },
    password_config: { policy: { enabled: true }, enabled: false },
    experimental_features: { msc4108_enabled: true },
  });
  expect(matrix.secret).toMatch(/^[\w-]{43}$/);
  const shown = await cluster.cli(["tenant", "authentication", "show", "clinic-a", "-o", "json"]);
  expect(JSON.parse(shown.stdout)).toEqual({ matrix, authenticationService: URL });
});

test("tenant authentication set leads to another address with the same secret, in one change", async () => {
  await cluster.cli(["tenant", "create", "clinic-a", "--mas", URL]);
  const before = parse(cluster.service.tenants.get("clinic-a")!.spec.config) as Record<string, { secret: string }>;
  const { generation } = cluster.service.tenants.get("clinic-a")!.metadata;
  const set = await cluster.cli(["tenant", "authentication", "set", "clinic-a", "http://10.1.2.3:8090"]);
  expect(set.code).toBe(0);
  const { spec, metadata } = cluster.service.tenants.get("clinic-a")!;
  expect([spec.authenticationService, metadata.generation]).toEqual(["http://10.1.2.3:8090", generation + 1]);
  expect(parse(spec.config)).toMatchObject({
    matrix_authentication_service: {
      endpoint: "http://10.1.2.3:8090",
      secret: before["matrix_authentication_service"]!.secret,
    },
  });
});

test("what is no address of a service is refused, and a tenant without one has nothing to show", async () => {
  cluster.service.addTenant("clinic-b");
  const [wrong, none, both] = await Promise.all([
    cluster.cli(["tenant", "create", "clinic-a", "--mas", "https://mas.example/path"]),
    cluster.cli(["tenant", "authentication", "show", "clinic-b"]),
    cluster.cli(["tenant", "create", "clinic-a", "--mas", URL, "--admin", "ada"]),
  ]);
  expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining("without a path") as string });
  expect(none).toMatchObject({ code: 1, stderr: expect.stringContaining("keeps its accounts itself") as string });
  expect(both.code).toBe(2);
  expect(cluster.service.tenants.has("clinic-a")).toBe(false);
});

test("tenant authentication set leaves alone what somebody else has changed meanwhile", async () => {
  cluster.service.addTenant("clinic-a", {}, "enable_registration: false\n");
  const { spec } = cluster.service.tenants.get("clinic-a")!;
  const check = cluster.service.checkConfig.bind(cluster.service);
  cluster.service.checkConfig = (...asked) => {
    spec.config = "max_upload_size: 5M\n";
    return check(...asked);
  };
  const set = await cluster.cli(["tenant", "authentication", "set", "clinic-a", URL]);
  expect(set).toMatchObject({ code: 1, stderr: expect.stringContaining("somebody else has changed") as string });
  expect(spec).toMatchObject({ config: "max_upload_size: 5M\n" });
  expect(spec).not.toHaveProperty("authenticationService");
});

test("tenant create --mas --from-template copies the configuration, with a service and a secret of its own", async () => {
  await cluster.cli(["tenant", "create", "clinic-a", "--mas", URL, "--config", "-"], {
    stdin: "signing_key: ed25519 a_x AAAA\nenable_registration: false\n",
  });
  const other = "http://127.0.0.1:8091";
  const copied = await cluster.cli(["tenant", "create", "clinic-b", "--mas", other, "--from-template", "clinic-a"]);
  expect(copied).toMatchObject({ code: 0, stderr: "" });
  const [a, b] = ["clinic-a", "clinic-b"].map(
    (name) => parse(cluster.service.tenants.get(name)!.spec.config) as Record<string, { secret: string }>,
  );
  expect(b).toMatchObject({ enable_registration: false, matrix_authentication_service: { endpoint: other } });
  expect(b).not.toHaveProperty("signing_key");
  expect(b!["matrix_authentication_service"]!.secret).not.toBe(a!["matrix_authentication_service"]!.secret);
});
