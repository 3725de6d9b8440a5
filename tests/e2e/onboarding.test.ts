import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CertificateView } from "../../src/model/certificates.ts";
import type { CheckReport } from "../../src/model/tenant-check.ts";
import { DnsServer } from "../support/dns-server.ts";
import { freePort } from "../support/free-port.ts";
import { until } from "../support/patience.ts";
import { HAS_PEBBLE, Pebble } from "../support/pebble.ts";
import { Cluster } from "./support/cluster.ts";

let dns: DnsServer;
let pebble: Pebble;
let cluster: Cluster;
let files: string;

describe.skipIf(!HAS_PEBBLE)("a domain becomes a tenant", () => {
  beforeAll(async () => {
    files = await mkdtemp(join(tmpdir(), "onboarding-"));
    const [port, tlsPort] = [await freePort(), await freePort()];
    dns = await DnsServer.start();
    pebble = await Pebble.start({ dns: dns.address, httpPort: port });
    await writeFile(join(files, "authorities.pem"), pebble.authorities);
    const to = (at: number) => `127.0.0.1:${at}`;
    cluster = await Cluster.start({
      baseDomain: "hosting.example",
      gateway: { port, tlsPort },
      publicAccess: {
        addresses: ["127.0.0.1"],
        dnsServers: [dns.address],
        connectTo: [
          { port: 80, to: to(port) },
          { port: 443, to: to(tlsPort) },
          { port: 8448, to: to(tlsPort) },
        ],
      },
      certificates: {
        acme: {
          directory: pebble.directory,
          agreeToTerms: true,
          authorities: join(files, "authorities.pem"),
          checkEverySeconds: 1,
        },
      },
    });
  });
  afterAll(async () => {
    await cluster?.destroy();
    await pebble?.stop();
    await dns?.stop();
    await rm(files, { recursive: true, force: true });
  });

  it("by one command: with its first administrator, and certificates as soon as DNS leads here", async () => {
    const creating = cluster.json<{ admin: { userId: string; password: string }; check: CheckReport; url: string }>(
      "tenant",
      "create",
      "clinic-z",
      "--domain",
      "clinic-z.example",
      "--admin",
      "ada",
      "--wait",
    );
    await until("DNS is asked", () => dns.asked.includes("matrix.clinic-z.example"));
    for (const name of ["clinic-z.example", "matrix.clinic-z.example"]) dns.zone.set(name, { A: ["127.0.0.1"] });
    // What nobody could see before is looked at again at once.
    await until("both have a certificate", async () => {
      const items = await cluster.json<CertificateView[]>("certificates", "list");
      for (const { name, state, problem } of items)
        if (problem === "NotReachable" && state !== "Valid") await cluster.cli("certificates", "renew", name);
      return items.length === 2 && items.every(({ state }) => state === "Valid");
    });
    const { admin, check, url } = await creating;
    expect([admin.userId, url]).toEqual(["@ada:clinic-z.example", "https://matrix.clinic-z.example"]);
    expect(admin.password).toHaveLength(20);
    const codes = check.findings.filter(({ severity }) => severity !== "ok").map(({ code }) => code);
    expect(codes).toEqual([]);
    expect(check.findings.map(({ code }) => code)).toEqual(
      expect.arrayContaining(["certificate-ok", "keys-ok", "delegation-ok", "client-discovery-ok", "federation-ok"]),
    );
    expect(pebble.orders).toBe(2);
  });
});
