import { generateKeyPairSync } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Finding } from "../../src/model/tenant-check.ts";
import { Authority } from "../support/authority.ts";
import { delegating, ELSEWHERE, GATEWAY, homeserver, KEYS, serverKeys, SUBJECT, World } from "./world.ts";

let world: World;
beforeEach(async () => {
  world = await World.start();
  await world.settle();
});
afterEach(() => world.stop());

/** Codes that are not all well. */
const wrong = (findings: readonly Finding[]) =>
  findings.filter(({ severity }) => severity !== "ok").map(({ severity, code }) => `${severity} ${code}`);
const finding = (findings: readonly Finding[], code: Finding["code"]) => findings.find((one) => one.code === code);

describe("a tenant as the world sees it", () => {
  it("is well when everything is: each thing that was looked at is said", async () => {
    const findings = await world.check();
    expect(findings.map(({ severity, code, subject }) => `${severity} ${code} ${subject}`)).toEqual([
      "ok dns-ok matrix.clinic-z.example",
      "ok certificate-ok matrix.clinic-z.example",
      "ok client-api-ok https://matrix.clinic-z.example/_matrix/client/versions",
      "ok client-discovery-ok https://clinic-z.example/.well-known/matrix/client",
      "ok keys-ok matrix.clinic-z.example:443",
      "ok federation-ok matrix.clinic-z.example:443",
      "ok certificate-ok clinic-z.example",
      "ok delegation-ok https://clinic-z.example/.well-known/matrix/server",
    ]);
  });

  it("has no address yet: the record to make is named", async () => {
    world.dns.zone.clear();
    const findings = await world.check();
    expect(finding(findings, "dns-missing")).toMatchObject({
      severity: "error",
      subject: "matrix.clinic-z.example",
      remedy: `let matrix.clinic-z.example have the addresses ${GATEWAY} (A and AAAA records)`,
    });
    expect(wrong(findings)).toContain("error delegation-missing");
    expect(world.seen).toEqual([]);
  });

  it("leads elsewhere: said, and nothing is sent to an address of this machine or network", async () => {
    for (const address of ["127.0.0.1", "10.1.2.3", "169.254.169.254"]) {
      world.dns.zone.set("matrix.clinic-z.example", { A: [address] });
      expect(finding(await world.check(), "dns-private")).toMatchObject({
        severity: "error",
        message: expect.stringContaining(address),
      });
    }
    world.dns.zone.set("matrix.clinic-z.example", { AAAA: ["::ffff:7f00:1"] });
    expect(wrong(await world.check())).toContain("error dns-private");
    expect(world.seen.filter((request) => request.startsWith("matrix."))).toEqual([]);
    world.access.addresses = [GATEWAY, ELSEWHERE];
    world.dns.zone.set("matrix.clinic-z.example", { A: [ELSEWHERE] });
    expect(wrong(await world.check())).toEqual([]);
    world.access.addresses = [GATEWAY];
    expect(wrong(await world.check())).toContain("warning dns-elsewhere");
  });

  it("is not led to a private address by a redirect or a delegation either", async () => {
    world.dns.zone.set("inside.example", { A: ["127.0.0.1"] });
    const port = world.access.connectTo[0]!.to.split(":")[1];
    await world.site("inside.example", () => [200, { "m.server": "inside.example:443" }]);
    await world.site("clinic-z.example", () => [302, "", { location: `https://inside.example:${port}/` }]);
    expect(wrong(await world.check())).toContain("error delegation-missing");
    await world.site("clinic-z.example", delegating(`inside.example:${port}`));
    expect(wrong(await world.check())).toContain("error delegation-wrong");
    await world.site("clinic-z.example", delegating(`127.0.0.1:${port}`));
    expect(wrong(await world.check())).toContain("error delegation-wrong");
    expect(world.seen.filter((request) => request.startsWith("inside"))).toEqual([]);
  });

  it("is told from DNS that does not answer", async () => {
    world.dns.isBroken = true;
    expect(wrong(await world.check())).toEqual(["error dns-failed"]);
  });
});

describe("delegation", () => {
  it("may be redirected to the homeserver's own host", async () => {
    await world.site(
      "matrix.clinic-z.example",
      (path, request) => delegating("matrix.clinic-z.example:443")(path, request) ?? homeserver()(path, request),
    );
    await world.site("clinic-z.example", (path) => [302, "", { location: `https://matrix.clinic-z.example${path}` }]);
    expect(wrong(await world.check())).toEqual([]);
  });

  it("is missing, invalid or wrong, each with what to serve", async () => {
    await world.site("clinic-z.example", () => undefined);
    const missing = await world.check();
    expect(wrong(missing)).toContain("error delegation-missing");
    expect(wrong(missing)).toContain("warning client-discovery-missing");
    expect(finding(missing, "delegation-missing")?.remedy).toContain('{"m.server":"matrix.clinic-z.example:443"}');
    await world.site("clinic-z.example", () => [200, "<html>"]);
    expect(wrong(await world.check())).toContain("error delegation-invalid");
    world.dns.zone.set("other.example", { A: [GATEWAY] });
    await world.site("other.example", homeserver(serverKeys("clinic-z.example", generateKeyPairSync("ed25519"))));
    await world.site("clinic-z.example", delegating("other.example:443", "https://other.example"));
    const foreign = await world.check();
    expect(wrong(foreign)).toEqual(["error client-discovery-wrong", "error keys-foreign", "error delegation-wrong"]);
  });

  it("is followed by SRV records: the present one, and with a warning the one that was given up", async () => {
    await world.site("clinic-z.example", homeserver());
    world.dns.zone.set("_matrix._tcp.clinic-z.example", { SRV: [{ target: "matrix.clinic-z.example", port: 443 }] });
    const old = await world.check();
    expect(wrong(old)).toEqual(["warning client-discovery-missing", "warning srv-deprecated"]);
    expect(finding(old, "delegation-ok")?.message).toContain("an SRV record");
    world.dns.zone.set("_matrix-fed._tcp.clinic-z.example", {
      SRV: [{ target: "matrix.clinic-z.example", port: 443 }],
    });
    expect(wrong(await world.check())).toEqual(["warning client-discovery-missing", "info srv-present"]);
    // The certificate has to be for the server name, wherever the record leads.
    expect(world.seen).toContain("clinic-z.example /_matrix/key/v2/server");
  });

  it("ends at port 8448 of the name", async () => {
    await world.site("clinic-z.example", homeserver());
    const findings = await world.check();
    expect(finding(findings, "delegation-ok")?.message).toContain("port 8448");
    expect(finding(findings, "keys-ok")?.subject).toBe("clinic-z.example:8448");
  });

  it("is not asked for where the server name has a port", async () => {
    const serverName = "matrix.clinic-z.example:443";
    await world.site("matrix.clinic-z.example", homeserver(serverKeys(serverName)));
    expect(wrong(await world.check({ ...SUBJECT, serverName, keys: KEYS }))).toEqual([]);
    expect(world.seen.filter((request) => request.includes("well-known"))).toEqual([]);
  });
});

describe("what the homeserver shows", () => {
  it("is a certificate that is for another name, untrusted, the cluster's own, over, or over soon", async () => {
    const host = "matrix.clinic-z.example";
    await world.site(host, homeserver(), { names: ["other.example"] });
    expect(wrong(await world.check())).toContain("error certificate-wrong-name");
    const unknown = await Authority.make("CN=Nobody knows");
    await world.site(host, homeserver(), { names: [host], authority: unknown });
    expect(wrong(await world.check())).toContain("error certificate-untrusted");
    expect(wrong(await world.check({ ...SUBJECT, keys: KEYS }, [unknown.pem]))).toContain(
      "error certificate-own-authority",
    );
    await world.site(host, homeserver());
    // Test certificates live for half a day.
    world.now = Date.now() + 11.5 * 3_600_000;
    expect(wrong(await world.check())).toContain("warning certificate-ends-soon");
  });

  it("is keys of another server, without its signature, or over", async () => {
    const host = "matrix.clinic-z.example";
    const codes = async (keys: object) => {
      await world.site(host, homeserver(keys));
      return wrong(await world.check()).filter((code) => code.includes("keys"));
    };
    expect(await codes(serverKeys("other.example"))).toEqual(["error keys-invalid"]);
    expect(await codes({ ...serverKeys(SUBJECT.serverName), old_verify_keys: { "ed25519:0": {} } })).toEqual([
      "error keys-invalid",
    ]);
    expect(await codes(serverKeys(SUBJECT.serverName, undefined, 1_000))).toEqual(["error keys-invalid"]);

    expect(await codes({})).toEqual(["error keys-invalid"]);
    expect(await codes(serverKeys(SUBJECT.serverName, generateKeyPairSync("ed25519")))).toEqual(["error keys-foreign"]);
  });

  it("is an answer that says that the tenant does not run", async () => {
    await world.site("matrix.clinic-z.example", () => [503, { errcode: "M_UNKNOWN" }]);
    const findings = await world.check();
    expect(finding(findings, "client-api-unreachable")?.remedy).toContain("the tenant does not run");
    expect(finding(findings, "federation-unreachable")?.remedy).toContain("the tenant does not run");
  });

  it("is nothing within reach of a check: names of this machine alone", async () => {
    const findings = await world.check({ serverName: "clinic-a.localhost", url: "http://clinic-a.localhost:8008" });
    expect(wrong(findings)).toEqual(["info name-not-public"]);
    expect(world.dns.asked).toEqual([]);
  });
});
