import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { request } from "undici";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse, stringify } from "yaml";
import { freePort } from "../support/free-port.ts";
import { Cluster } from "./support/cluster.ts";
import { MAS, MatrixAuthenticationService } from "./support/mas.ts";

const PASSWORD = "a long password of the tests";

let folder: string;
let cluster: Cluster;
let mas: MatrixAuthenticationService | undefined;

async function run(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cluster.cli(...args);
  if (code !== 0) throw new Error(`${args.join(" ")} ended with ${code}: ${stderr}`);
  return stdout;
}

/** As a URI, of what is printed to be run in a shell. */
function databaseUri(command: string): string {
  const [, password, host, port, user, database] =
    /^PGPASSWORD=(\S+) psql --host=(\S+) --port=(\d+) --username=(\S+) (\S+)$/m.exec(command)!;
  return `postgresql://${user}:${password}@${host}:${port}/${database}`;
}

describe.runIf(MAS)("Matrix Authentication Service", () => {
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "shards-mas-migration-"));
    const recipient = await identityToRecipient(await generateIdentity());
    cluster = await Cluster.start({ backups: { target: { directory: join(folder, "backups") }, recipient } });
  });
  afterAll(async () => {
    await mas?.destroy();
    await cluster?.destroy();
    await rm(folder, { recursive: true, force: true });
  });

  it("a tenant's accounts are brought to Matrix Authentication Service while it is suspended, out of a backup: people keep devices, tokens and passwords", async () => {
    const home = `http://localhost:${await cluster.gatewayPort()}`;
    const serverName = `localhost:${await cluster.gatewayPort("https")}`;
    const logIn = async () => {
      const identifier = { type: "m.id.user", user: "ada" };
      const { statusCode, body } = await request(`${home}/_matrix/client/v3/login`, {
        method: "POST",
        body: JSON.stringify({ type: "m.login.password", identifier, password: PASSWORD }),
      });
      return { status: statusCode, body: (await body.json()) as { access_token: string; device_id: string } };
    };
    const whoAmI = async (token: string) => {
      const { statusCode, body } = await request(`${home}/_matrix/client/v3/account/whoami`, {
        headers: { authorization: `Bearer ${token}` },
      });
      return { status: statusCode, body: await body.json() };
    };
    await cluster.createTenant("clinic", "--server-name", serverName);
    await run("tenant", "register-user", "clinic", "--user", "ada", "--password", PASSWORD);
    const before = await logIn();
    expect(before.status).toBe(200);

    await run("tenant", "suspend", "clinic", "--wait");
    await run("tenant", "backup", "clinic");
    await run("tenant", "inspect", "clinic");
    const uri = databaseUri(await run("tenant", "inspect", "clinic", "--login"));
    const port = await freePort();
    const section = await run("tenant", "authentication", "set", "clinic", `http://127.0.0.1:${port}`);
    const { matrix } = parse(section) as { matrix: object };
    mas = await MatrixAuthenticationService.create({ port, matrix: { ...matrix, endpoint: home } });
    const homeserver = join(folder, "homeserver.yaml");
    await writeFile(homeserver, stringify({ server_name: serverName, database: { name: "psycopg2" } }));
    const from = ["--synapse-config", homeserver, "--synapse-database-uri", uri];
    await mas.command("config", "sync");
    expect(await mas.command("syn2mas", "check", ...from)).toContain("no errors or warnings");
    await mas.command("syn2mas", "migrate", ...from);
    await mas.start();
    await run("tenant", "inspect", "clinic", "--remove");
    await run("tenant", "resume", "clinic", "--wait");

    const { access_token, device_id } = before.body;
    expect(await whoAmI(access_token)).toMatchObject({
      status: 200,
      body: { user_id: `@ada:${serverName}`, device_id },
    });
    const after = await logIn();
    expect(after.status).toBe(200);
    // The service's own, and not the homeserver's.
    expect(after.body.access_token).toMatch(/^mct_/);
    expect((await whoAmI(after.body.access_token)).status).toBe(200);
  });
});
