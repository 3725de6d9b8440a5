import { createPrivateKey, webcrypto, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { isIP, type AddressInfo } from "node:net";
import { connect, createServer } from "node:tls";
import { expect, test } from "vitest";
import "../../../src/certificates/reflect-metadata.ts";
import {
  SubjectAlternativeNameExtension,
  X509Certificate as Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { Certificates } from "../../../src/gateway/tls.ts";
import { ensureAuthority, type AuthorityFiles } from "../../../src/platforms/local/certificates.ts";
import { temporaryDirectory } from "./support.ts";

const DAY = 86_400_000;
const inDays = (days: number) => new Date(Date.now() + days * DAY);

test("the authority is made once, for a year, and its key is the owner's alone", async () => {
  const directory = await temporaryDirectory();
  const files = await ensureAuthority(directory, ["localhost"]);
  const text = readFileSync(files.certificate, "utf8");
  const certificate = new X509Certificate(text);
  expect(certificate.ca).toBe(true);
  expect(certificate.verify(certificate.publicKey)).toBe(true);
  const days = (new Date(certificate.validTo).getTime() - Date.now()) / DAY;
  expect(Math.round(days)).toBe(365);
  expect(statSync(files.key).mode & 0o077).toBe(0);
  await ensureAuthority(directory, ["localhost"], inDays(180));
  expect(readFileSync(files.certificate, "utf8")).toBe(text);
});

test.each([
  ["half of its time is over", ["localhost"], 190],
  ["another domain is added", ["localhost", "clinic.example"], 0],
])(
  "it is issued again with the same key and name when %s, so that clients trust what it signs",
  async (_why, domains, days) => {
    const directory = await temporaryDirectory();
    const files = await ensureAuthority(directory, ["localhost"]);
    const before = new X509Certificate(readFileSync(files.certificate));
    await ensureAuthority(directory, domains, inDays(days));
    const after = new X509Certificate(readFileSync(files.certificate));
    expect(after.fingerprint256).not.toBe(before.fingerprint256);
    expect([after.subject, after.publicKey.equals(before.publicKey)]).toEqual([before.subject, true]);
  },
);

/** Signs for a name as somebody would who has stolen the key. */
async function stolenLeaf(files: AuthorityFiles, host: string): Promise<{ cert: string; key: string }> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const der = createPrivateKey(readFileSync(files.key)).export({ type: "pkcs8", format: "der" });
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const leaf = await X509CertificateGenerator.create({
    subject: "CN=leaf",
    issuer: new Certificate(readFileSync(files.certificate, "utf8")).subject,
    notBefore: inDays(-1),
    notAfter: inDays(1),
    publicKey: keys.publicKey,
    signingKey: await webcrypto.subtle.importKey("pkcs8", der, algorithm, false, ["sign"]),
    signingAlgorithm: algorithm,
    extensions: [new SubjectAlternativeNameExtension([{ type: isIP(host) ? "ip" : "dns", value: host }])],
  });
  const key = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  return { cert: leaf.toString("pem"), key: `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n` };
}

test.each([
  ["clinic-a.localhost", true],
  ["localhost", true],
  ["x.clinic.example", true],
  ["bank.example", false],
  ["notlocalhost", false],
  ["127.0.0.1", false],
])("clients that trust it take %s from it: %s", async (host, isTaken) => {
  const files = await ensureAuthority(await temporaryDirectory(), ["localhost", "clinic.example"]);
  const server = createServer(await stolenLeaf(files, host), (socket) => socket.end());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const ca = readFileSync(files.certificate);
  const socket = connect({
    port,
    host: "127.0.0.1",
    servername: isIP(host) ? "" : host,
    ca,
    checkServerIdentity: () => undefined,
  });
  const seen = await new Promise((resolve) => {
    socket.once("secureConnect", () => resolve(true)).once("error", (error) => resolve(error.message));
  });
  socket.destroy();
  server.close();
  expect(String(seen)).toMatch(isTaken ? /^true$/ : /subtree/);
});

test("the gateway says what to do for a host that the authority may not sign for", async () => {
  const authority = await ensureAuthority(await temporaryDirectory(), ["localhost"]);
  const problems: string[] = [];
  const certificates = await Certificates.load({
    directory: await temporaryDirectory(),
    authority,
    isRouted: () => true,
    onProblem: (_host, error) => problems.push(String(error)),
  });
  expect(await certificates.contextFor("clinic.example")).toBeUndefined();
  expect(problems.join()).toMatch(/clinic\.example\.crt.*gateway\.certificateDomains/);
  // Renewed while the gateway runs.
  await ensureAuthority(authority.certificate.slice(0, -"/ca.crt".length), ["localhost", "clinic.example"]);
  expect(await certificates.contextFor("clinic.example")).toBeDefined();
});

test("the gateway can mint from it", async () => {
  const authority = await ensureAuthority(await temporaryDirectory(), ["localhost"]);
  const certificates = await Certificates.load({
    directory: await temporaryDirectory(),
    authority,
    isRouted: () => true,
    onProblem: (...problem: unknown[]) => expect.unreachable(String(problem)),
  });
  expect(await certificates.contextFor("clinic-a.localhost")).toBeDefined();
});

test("files that do not belong together are an error, not a new authority", async () => {
  const [one, two] = [
    await ensureAuthority(await temporaryDirectory(), ["localhost"]),
    await ensureAuthority(await temporaryDirectory(), ["localhost"]),
  ];
  writeFileSync(one.key, readFileSync(two.key));
  const directory = one.certificate.slice(0, -"/ca.crt".length);
  await expect(ensureAuthority(directory, ["localhost"])).rejects.toThrow("is not the key of");
  rmSync(one.key);
  await expect(ensureAuthority(directory, ["localhost"])).rejects.toThrow("has lost its key");
});
