import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { CheckReport, Finding } from "../../src/model/tenant-check.ts";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

// Each test starts several processes, which takes its time on a machine that is busy.
vi.setConfig({ testTimeout: 180_000 });

let cluster: ClusterUnderTest;
beforeEach(async () => {
  cluster = await startClusterUnderTest();
  cluster.service.addShard("1.163.2-0");
});
afterEach(() => cluster.close());

const MISSING: Finding = {
  code: "dns-missing",
  severity: "error",
  subject: "matrix.clinic-z.example",
  message: "matrix.clinic-z.example has no address in DNS",
  remedy: "let matrix.clinic-z.example have the addresses 203.0.113.5 (A and AAAA records)",
};
const FINE: Finding = {
  code: "keys-ok",
  severity: "ok",
  subject: "matrix.clinic-z.example:443",
  message: "the keys are the tenant's own",
};

test("tenant create --domain says what has to be published, and --wait watches until nothing is in the way", async () => {
  cluster.service.findings.push([MISSING, FINE], [FINE]);
  expect(await cluster.cli(["tenant", "create", "clinic-z", "--domain", "clinic-z.example", "--wait"]))
    .toMatchInlineSnapshot(`
    {
      "code": 0,
      "stderr": "error    dns-missing  matrix.clinic-z.example has no address in DNS
                          → let matrix.clinic-z.example have the addresses 203.0.113.5 (A and AAAA records)
    ",
      "stdout": "DNS records:
      ; clients and other servers reach the homeserver
      matrix.clinic-z.example.  3600  IN  A     203.0.113.5
      ; clients and other servers find it; not where a web site has this name
      clinic-z.example.         3600  IN  A     203.0.113.5

    Where a web site has clinic-z.example, it serves these, or redirects them to the same path at https://matrix.clinic-z.example:
      https://clinic-z.example/.well-known/matrix/server
        {"m.server":"matrix.clinic-z.example:443"}
      https://clinic-z.example/.well-known/matrix/client
        {"m.homeserver":{"base_url":"https://matrix.clinic-z.example"}}
      The one for clients needs the header Access-Control-Allow-Origin: *

    Or, for other servers alone, and with a certificate for the server name at the gateway:
      _matrix-fed._tcp.clinic-z.example. 3600 IN SRV 10 5 443 matrix.clinic-z.example.
    tenant clinic-z is running at https://matrix.clinic-z.example
    ",
    }
  `);
  expect(cluster.service.tenants.get("clinic-z")?.spec.serverName).toBe("clinic-z.example");
});

test("tenant dns shows it again", async () => {
  await cluster.printed("tenant", "create", "clinic-z", "--domain", "clinic-z.example");
  const dns = JSON.parse(await cluster.printed("tenant", "dns", "clinic-z", "-o", "json")) as object;
  expect(dns).toMatchObject({ host: "matrix.clinic-z.example", delegate: "matrix.clinic-z.example:443" });
});

test("tenant check ends with 1 where something is wrong, and says what to do about it", async () => {
  await cluster.printed("tenant", "create", "clinic-z");
  cluster.service.findings.push([MISSING, FINE], [FINE], [MISSING]);
  expect(await cluster.cli(["tenant", "check", "clinic-z"])).toMatchInlineSnapshot(`
    {
      "code": 1,
      "stderr": "",
      "stdout": "error    dns-missing  matrix.clinic-z.example has no address in DNS
                          → let matrix.clinic-z.example have the addresses 203.0.113.5 (A and AAAA records)
    ok       keys-ok      the keys are the tenant's own
    ",
    }
  `);
  expect((await cluster.cli(["tenant", "check", "clinic-z"])).code).toBe(0);
  const { code, stdout } = await cluster.cli(["tenant", "check", "clinic-z", "-o", "json"]);
  expect([code, (JSON.parse(stdout) as CheckReport).findings]).toEqual([1, [MISSING]]);
});

test("tenant create --admin registers the first administrator: with a password that is printed once, or one from stdin", async () => {
  const { stdout } = await cluster.cli(["tenant", "create", "clinic-z", "--admin", "ada"]);
  const [, password] = /^registered @ada:clinic-z\.localhost\npassword: (\S{20})$/m.exec(stdout) ?? [];
  expect(cluster.service.users).toEqual([{ tenant: "clinic-z", request: { username: "ada", password, admin: true } }]);

  const given = await cluster.cli(["tenant", "create", "clinic-y", "--admin", "ada", "--admin-password-stdin"], {
    stdin: "correct horse\n",
  });
  expect(given.stdout).not.toContain("password");
  expect(cluster.service.users.at(-1)).toMatchObject({
    tenant: "clinic-y",
    request: { password: "correct horse", admin: true },
  });

  const without = await cluster.cli(["tenant", "create", "clinic-x", "--admin-password-stdin"], {
    stdin: "correct horse\n",
  });
  expect([without.code, without.stderr]).toEqual([2, "error: --admin-password-stdin needs --admin\n"]);
});

test("an administrator who cannot be registered is said, with the command that does it", async () => {
  cluster.service.refusesUsers = true;
  const { code, stderr } = await cluster.cli(["tenant", "create", "clinic-z", "--admin", "ada"]);
  expect(code).toBe(2);
  expect(stderr).toContain("tenant register-user clinic-z --user ada --admin");
  expect(cluster.service.tenants.has("clinic-z")).toBe(true);
});
