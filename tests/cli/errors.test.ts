import { once } from "node:events";
import { rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTcpServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { flatten, treeOf } from "../../src/cli/command-tree.ts";
import { buildProgram } from "../../src/cli/program.ts";
import { type ClusterUnderTest, runCli, startCli, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeEach(async () => void (cluster = await startClusterUnderTest()));
afterEach(() => cluster.close());

const EVENT = { type: "Normal", reason: "Moved", object: "Tenant/clinic-a", message: "moved" } as const;

describe("finding the cluster", () => {
  test("says what to do where no cluster runs", async () => {
    expect(await runCli(["tenant", "list", "--data", "/nowhere"])).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: no cluster runs with data directory /nowhere: start one with \`synapse-shards up --data /nowhere\`
      ",
        "stdout": "",
      }
    `);
    expect(await runCli(["tenant", "list"], { env: { SYNAPSE_SHARDS_DATA: "/nowhere/else" } })).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: no cluster runs with data directory /nowhere/else: start one with \`synapse-shards up\`
      ",
        "stdout": "",
      }
    `);
  });

  test("tells a cluster that has ended from one that does not answer", async () => {
    await cluster.api.close();
    expect(await cluster.cli(["status"])).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: the controller does not answer at API (ECONNREFUSED); if this lasts, stop the cluster and start it again with \`synapse-shards up --data DATA\`
      ",
        "stdout": "",
      }
    `);
    // No process has a number as high as this.
    const file = { apiUrl: cluster.api.url, tokenFile: "api-token", pid: 2 ** 30 };
    await cluster.write("cluster.json", JSON.stringify(file));
    expect(await cluster.cli(["status"])).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: the cluster with data directory DATA has ended: start it with \`synapse-shards up --data DATA\`
      ",
        "stdout": "",
      }
    `);
  });

  test("an address where something else answers is said to be that, whatever it answers", async () => {
    const answers: [number, string][] = [
      [200, "<html>It works!</html>"],
      [200, "{}"],
      [200, "null"],
      [404, '{"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}'],
      [404, '{"error": {}}'],
      [502, ""],
    ];
    let next = answers[0]!;
    const other = createServer((_request, response) => void response.writeHead(next[0]).end(next[1]));
    other.listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as AddressInfo;
    const to = (url: string) =>
      runCli(["tenant", "list", "--server", url, "--token-file", join(cluster.data, "api-token")]);
    for (next of answers) {
      const { code, stderr } = await to(`http://127.0.0.1:${port}`);
      const words = `error: http://127.0.0.1:${port} answers with status ${next[0]}, but is not the API of synapse-shards: check the address\n`;
      expect([next, code, stderr]).toEqual([next, 1, words]);
    }
    expect((await to(`https://127.0.0.1:${port}`)).stderr).toMatch(
      /^error: the controller does not answer at .* \(\S.+\): check the address\n$/,
    );
    other.close();
    const silent = createTcpServer((socket) => void socket.end("SSH-2.0-OpenSSH_9.2\r\n"));
    silent.listen(0, "127.0.0.1");
    await once(silent, "listening");
    const ssh = await to(`http://127.0.0.1:${(silent.address() as AddressInfo).port}`);
    silent.close();
    expect(ssh.stderr).toMatch(/does not speak HTTP\): check the address\n$/);
  });

  test("names damaged files", async () => {
    await cluster.write("cluster.json", '{"apiUrl": 7}');
    expect(await cluster.cli(["status"])).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: DATA/cluster.json is damaged: stop the cluster and start it again with \`synapse-shards up --data DATA\`
      ",
        "stdout": "",
      }
    `);
    await cluster.write("cluster.json", JSON.stringify({ apiUrl: cluster.api.url, tokenFile: "api-token" }));
    await rm(join(cluster.data, "api-token"));
    expect(await cluster.cli(["status"])).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: cannot read the API token DATA/api-token: ENOENT: no such file or directory, open 'DATA/api-token'
      ",
        "stdout": "",
      }
    `);
  });

  test("--server and --token-file work without a data directory", async () => {
    cluster.service.addTenant("clinic-a");
    const { url } = cluster.api;
    const token = join(cluster.data, "api-token");
    const listed = await runCli(["tenant", "list", "-o", "json", "--server", `${url}/`, "--token-file", token]);
    expect(JSON.parse(listed.stdout)).toMatchObject([{ name: "clinic-a" }]);
    expect(await runCli(["tenant", "list", "--server", url])).toMatchInlineSnapshot(`
      {
        "code": 2,
        "stderr": "error: --server needs a token too: --token-file FILE, $SYNAPSE_SHARDS_TOKEN_FILE or $SYNAPSE_SHARDS_TOKEN
      ",
        "stdout": "",
      }
    `);
    expect(await runCli(["tenant", "list", "--server", "ftp://x", "--token-file", token])).toMatchInlineSnapshot(`
      {
        "code": 2,
        "stderr": "error: --server must be a URL such as http://127.0.0.1:8010, but ftp://x was given
      ",
        "stdout": "",
      }
    `);
    const wrong = await cluster.write("wrong", "another-token");
    const refused = await runCli(["tenant", "list", "--server", url, "--token-file", wrong]);
    expect({ ...refused, stderr: refused.stderr.replace(url, "API") }).toMatchInlineSnapshot(`
      {
        "code": 1,
        "stderr": "error: API does not take the token: the token is wrong, or has expired
      ",
        "stdout": "",
      }
    `);
  });
});

describe("exit codes", () => {
  test("exit codes tell what went wrong", async () => {
    const { service } = cluster;
    service.addTenant("clinic-a");
    const codeOf = async (...args: string[]) => (await cluster.cli(args)).code;
    expect(await codeOf("tenant", "get", "clinic-a")).toBe(0);
    expect(await codeOf("tenant", "create", "clinic-a")).toBe(1);
    expect(await codeOf("tenant", "create", "clinic_a")).toBe(2);
    expect(await codeOf("up", "--config", await cluster.write("wrong.yaml", "gateway: {prot: 1}"))).toBe(2);
    expect(await codeOf("tenant", "create", "x", "--config", await cluster.write("list.yaml", "- 1"))).toBe(2);
    expect(await codeOf("tenant", "get", "nobody")).toBe(3);
    expect(await codeOf("shard", "drain", "nothing")).toBe(3);
    for (const wrong of [
      ["tenant", "bogus"],
      ["tenant", "get"],
      ["tenant", "get", "a", "b"],
      ["tenant", "list", "--bogus"],
      ["tenant", "list", "-o", "xml"],
      ["tenant", "create", "x", "--timeout", "soon"],
      ["tenant", "create", "x", "--config", "/nowhere.yaml"],
      ["tenant", "logs", "x", "--tail", "-1"],
      ["events", "--for", "clinic-a"],
      ["completion", "tcsh"],
    ]) {
      expect([wrong, await codeOf(...wrong)]).toEqual([wrong, 2]);
    }
  });

  test("shows the stack of a bug when asked", async () => {
    cluster.service.status = async () => ({ version: "1", policy: {}, tenants: "none" }) as never;
    const { code, stderr } = await cluster.cli(["status"]);
    expect([code, stderr.split("\n").length]).toEqual([1, 2]);
    expect(stderr).toMatch(/^error: .*this is a bug; DEBUG=1 shows where/);
    expect((await cluster.cli(["status"], { env: { DEBUG: "1" } })).stderr).toContain("status.ts");
  });

  test("Ctrl-C ends a following command with its code", async () => {
    const child = startCli(["events", "--follow", "-o", "json", "--data", cluster.data]);
    cluster.service.addEvent(EVENT);
    const [chunk] = (await once(child.stdout!, "data")) as [Buffer];
    expect(JSON.parse(chunk.toString())).toMatchObject(EVENT);
    child.kill("SIGINT");
    expect(await once(child, "exit")).toEqual([130, null]);
    await expect.poll(() => cluster.service.openStreams).toBe(0);
  });
});

describe("following", () => {
  test("a follower ends with the cluster", async () => {
    cluster.service.addTenant("clinic-a");
    const child = startCli(["tenant", "logs", "clinic-a", "-f", "--tail", "1", "--data", cluster.data]);
    const [chunk] = (await once(child.stdout!, "data")) as [Buffer];
    expect(chunk.toString()).toBe("third line\n");
    await cluster.api.close();
    expect(await once(child, "exit")).toEqual([0, null]);
  });

  test("a reader that has seen enough (… | head) causes no error", async () => {
    cluster.service.addTenant("clinic-a");
    cluster.service.tenantLog = async function* () {
      for (let n = 0; n < 100_000; n += 1) yield `line ${n}`;
    };
    const child = startCli(["tenant", "logs", "clinic-a", "--data", cluster.data]);
    let stderr = "";
    child.stderr?.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    await once(child.stdout!, "data");
    child.stdout?.destroy();
    expect(await once(child, "exit")).toEqual([0, null]);
    expect(stderr).toBe("");
  });

  test("waits on while the controller is replaced", async () => {
    const tenant = cluster.service.addTenant("clinic-a", { phase: "Starting" });
    cluster.service.onUpdate = () => {};
    let polls = 0;
    // In front of the API: cuts the first poll off, as a killed controller does, and hands on the rest.
    const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      if (request.method === "GET" && (polls += 1) === 1) return void request.socket.destroy();
      if (polls === 3) cluster.service.run(tenant, "1.163.2-0");
      const { method = "", url = "" } = request;
      const body = method === "GET" ? {} : { body: await text(request) };
      const answer = await cluster.api.request(url, { method, ...body });
      response.writeHead(answer.status).end(await answer.text());
    };
    const front = createServer((request, response) => void handle(request, response));
    front.listen(0, "127.0.0.1");
    await once(front, "listening");
    const apiUrl = `http://127.0.0.1:${(front.address() as AddressInfo).port}`;
    await cluster.write("cluster.json", JSON.stringify({ apiUrl, tokenFile: "api-token" }));
    const { code, stderr } = await cluster.cli(["tenant", "update", "clinic-a", "--config", "-", "--wait"], {
      stdin: "a: 1",
    });
    front.close();
    expect([code, stderr, polls]).toEqual([0, "", 3]);
  });
});

describe("help", () => {
  test("every command and option has help", async () => {
    const program = buildProgram();
    const nodes = flatten(treeOf(program));
    expect(nodes.map(({ paths }) => paths[0]?.join(" "))).toMatchInlineSnapshot(`
      [
        "",
        "up",
        "tenant",
        "tenant create",
        "tenant update",
        "tenant delete",
        "tenant list",
        "tenant get",
        "tenant describe",
        "tenant check",
        "tenant dns",
        "tenant move",
        "tenant move-database",
        "tenant rename",
        "tenant backup",
        "tenant backups",
        "tenant restore",
        "tenant inspect",
        "tenant inspections",
        "tenant import",
        "tenant export",
        "tenant quarantine",
        "tenant sleep",
        "tenant wake",
        "tenant suspend",
        "tenant resume",
        "tenant undelete",
        "tenant purge",
        "tenant purges",
        "tenant usage",
        "tenant quotas",
        "tenant logs",
        "tenant register-user",
        "tenant users",
        "tenant users list",
        "tenant users reset-password",
        "tenant users deactivate",
        "tenant users make-admin",
        "tenant appservice",
        "tenant appservice list",
        "tenant appservice add",
        "tenant appservice remove",
        "tenant appservice ping",
        "tenant host",
        "tenant host list",
        "tenant host add",
        "tenant host remove",
        "tenant authentication",
        "tenant authentication show",
        "tenant authentication set",
        "tenant admin-access",
        "tenant admin-access show",
        "tenant admin-access open",
        "tenant admin-access close",
        "tenant admin-access sign-in",
        "tenant edit",
        "apply",
        "diff",
        "plan",
        "plan list",
        "notifications",
        "notifications list",
        "notifications test",
        "database-server",
        "database-server list",
        "shard",
        "shard list",
        "shard get",
        "shard describe",
        "shard drain",
        "shard logs",
        "backup",
        "backup verify",
        "backup restore-all",
        "backup moments",
        "certificates",
        "certificates list",
        "certificates renew",
        "fleet",
        "fleet status",
        "fleet set",
        "fleet pause",
        "fleet resume",
        "fleet rollback",
        "status",
        "events",
        "history",
        "explain",
        "token",
        "token create",
        "token list",
        "token revoke",
        "account",
        "account create",
        "account list",
        "account reset",
        "account remove",
        "audit",
        "audit list",
        "audit export",
        "audit verify",
        "context",
        "context add",
        "context use",
        "context list",
        "context remove",
        "completion",
        "version",
      ]
    `);
    for (const { command } of nodes) {
      expect([command.name(), command.description()]).toEqual([command.name(), expect.stringMatching(/^[A-Za-z].{9}/)]);
      for (const option of command.options)
        expect([option.flags, option.description]).toEqual([option.flags, expect.stringMatching(/.{8}/)]);
      for (const argument of command.registeredArguments) expect(argument.description).not.toBe("");
      expect(command.helpInformation()).toContain("--output <format>");
    }
  });

  test("prints help on stdout, with exit code 0", async () => {
    const help = await runCli(["tenant", "create", "--help"]);
    expect([help.code, help.stderr]).toEqual([0, ""]);
    expect(help.stdout).toMatchInlineSnapshot(`
      "Usage: synapse-shards tenant create [options] <name>

      create a tenant

      Arguments:
        name                      name of the tenant: 1 to 63 of a-z, 0-9 and "-"

      Options:
        --server-name <name>      its Matrix server name, which can never be changed
                                  (default: NAME.<baseDomain>)
        --domain <domain>         instead: its server name, with the homeserver at a
                                  host of its own in it, by https
        --host <host>             with --domain: that host (default: matrix.DOMAIN)
        --release <version>       its release of Synapse, e.g. 1.163.2, or "fleet" to
                                  follow the fleet's (default: the cluster's)
        --config <file>           settings of its own for homeserver.yaml, as YAML (-:
                                  stdin)
        --hibernation <when>      when it sleeps: "never", "auto", or after this
                                  number of seconds without use
        --placement <where>       where it is wanted: "anywhere", or of "shard=NAME",
                                  "isolate", "spread-from=TENANT" (as often as needed)
                                  and "until=TIME" (not moved before), separated by
                                  commas
        --isolation <kind>        whether it has a process for itself or shares one
                                  with others (choices: "dedicated", "shared")
        --label <label>           a label KEY=VALUE; can be given several times
        --plan <plan>             the plan of the configuration whose quotas it has
        --quota <limit>           a quota of its own, QUOTA=NUMBER, before its plan's:
                                  users, monthlyActiveUsers, mediaBytes,
                                  databaseBytes, uploadBytes, requestsInFlight,
                                  cpuShare, remoteRoomComplexity, or soft.… of the
                                  first four; sizes such as 10G; can be given several
                                  times
        --from-template <tenant>  take release, configuration, placement, isolation,
                                  sleep, labels, plan and quotas of this tenant, where
                                  no option says otherwise; not its keys, server name,
                                  hosts, database, bucket, bridges and data
        --mas <url>               its accounts are kept by a Matrix Authentication
                                  Service at this URL; prints what belongs into that
                                  one's configuration
        --admin <user>            register this first administrator when it runs; the
                                  password is made, and printed once
        --admin-password-stdin    with --admin: the password is the first line of
                                  stdin
        --wait                    wait until it runs; with --domain, until clients and
                                  other servers find it
        --timeout <duration>      give up waiting after this time, e.g. 90s, 5m, 1h
                                  (default: 5m)
        -h, --help                display help for command

      Global Options:
        --version                 print the version of this program
        -o, --output <format>     how to print (csv: tenant usage alone) (choices:
                                  "table", "wide", "name", "json", "yaml", "csv",
                                  "jsonpath=", "template=", default: "table")
        --data <dir>              the cluster's data directory (default:
                                  $SYNAPSE_SHARDS_DATA, else data in the checkout)
        --context <name>          the cluster of this context (default:
                                  $SYNAPSE_SHARDS_CONTEXT, else the one in use)
        --server <url>            the controller's API, instead of looking it up
                                  (default: $SYNAPSE_SHARDS_SERVER)
        --token-file <file>       file with the API's token, for --server (default:
                                  $SYNAPSE_SHARDS_TOKEN_FILE)
        --ca-file <file>          certificates to trust, PEM, for --server (default:
                                  $SYNAPSE_SHARDS_CA_FILE)

      Examples:
        synapse-shards tenant create clinic-a
        synapse-shards tenant create clinic-a --domain clinic.example --admin ada --wait
        synapse-shards tenant create clinic-a --mas http://127.0.0.1:8090 --wait
        synapse-shards tenant create clinic-b --from-template clinic-a --label plan=small --quota users=50 --quota mediaBytes=10G
      "
    `);
    expect((await runCli(["--help"])).stdout).toContain("Exit codes:");
    expect(await runCli(["--version"])).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  });

  test("version works where no cluster runs", async () => {
    expect(JSON.parse((await runCli(["version", "-o", "json", "--data", "/nowhere"])).stdout)).toMatchObject({
      server: null,
    });
    expect(JSON.parse(await cluster.printed("version", "-o", "json"))).toMatchObject({ server: "0.1.0" });
  });
});
