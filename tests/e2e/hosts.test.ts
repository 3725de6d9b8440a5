import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { request } from "undici";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Cluster, RELAXED } from "./support/cluster.ts";

/** As a Service within a Kubernetes cluster, by which programs beside a homeserver call it. */
const SERVICE = "clinic-synapse.clinic.svc";
const SECRET = "shared-with-mas";

let cluster: Cluster;
let gateway: string;
beforeAll(async () => {
  cluster = await Cluster.start({ tenantPolicy: { ...RELAXED, allowedHosts: ["*.clinic.svc"] } });
  gateway = `http://localhost:${await cluster.gatewayPort()}`;
  const config = join(cluster.dataDir, "mas.yaml");
  const mas = `{enabled: true, endpoint: "http://mas.example/", secret: ${SECRET}}`;
  await writeFile(config, `matrix_authentication_service: ${mas}\npassword_config: {enabled: false}\n`);
  await Promise.all([cluster.createTenant("clinic", "--config", config), cluster.createTenant("other")]);
});
afterAll(() => cluster.destroy());

async function ask(host: string, path: string, token = ""): Promise<{ status: number; body: any }> {
  const headers = { host, ...(token === "" ? {} : { authorization: `Bearer ${token}` }) };
  const { statusCode, body } = await request(gateway + path, { headers });
  return { status: statusCode, body: await body.json() };
}
const whoAnswers = async (host: string) => (await ask(host, "/_matrix/key/v2/server")).body.server_name as unknown;

it("a further name leads to its tenant, with a port and a dot at its end as well, also after a move, until it is taken back", async () => {
  expect((await ask(SERVICE, "/_matrix/client/versions")).status).toBe(404);
  expect(await cluster.cli("tenant", "host", "add", "clinic", SERVICE, "--wait")).toMatchObject({ code: 0 });
  for (const host of [SERVICE, `${SERVICE}:8008`, `${SERVICE}.:8008`])
    expect([host, await whoAnswers(host)]).toEqual([host, "clinic.localhost"]);
  await cluster.move("clinic");
  expect(await whoAnswers(SERVICE)).toBe("clinic.localhost");
});

it("Matrix Authentication Service reaches what is its own at that name, with the secret alone, and not the admin API", async () => {
  const available = "/_synapse/mas/is_localpart_available?localpart=ada";
  expect((await ask(`${SERVICE}:8008`, available, SECRET)).status).toBe(200);
  expect((await ask(`${SERVICE}:8008`, available, "another")).status).toBe(403);
  expect((await ask(`${SERVICE}:8008`, "/_synapse/admin/v1/server_version", SECRET)).status).toBe(403);
});

it("a name belongs to one tenant: another that asks for it, or for one it may not have, runs on without", async () => {
  for (const [host, words] of [
    [SERVICE, `host ${SERVICE} belongs to tenant clinic already`],
    ["elsewhere.example", "synapse_shards.hosts may not lead to elsewhere.example"],
  ] as const) {
    const refused = await cluster.cli("tenant", "host", "add", "other", host);
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining(words) as string });
  }
  expect(await whoAnswers(SERVICE)).toBe("clinic.localhost");
  expect(await whoAnswers("other.localhost")).toBe("other.localhost");
  expect((await cluster.cli("tenant", "host", "remove", "clinic", SERVICE, "--yes", "--wait")).code).toBe(0);
  expect((await ask(SERVICE, "/_matrix/client/versions")).status).toBe(404);
  expect((await cluster.cli("tenant", "host", "add", "other", SERVICE, "--wait")).code).toBe(0);
  expect(await whoAnswers(SERVICE)).toBe("other.localhost");
});
