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
  expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining("by http and without a path") as string });
  expect(none).toMatchObject({ code: 1, stderr: expect.stringContaining("keeps its accounts itself") as string });
  expect(both.code).toBe(2);
  expect(cluster.service.tenants.has("clinic-a")).toBe(false);
});
