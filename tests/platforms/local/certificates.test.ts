import { X509Certificate } from "node:crypto";
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { Certificates } from "../../../src/gateway/tls.ts";
import { ensureAuthority } from "../../../src/platforms/local/certificates.ts";
import { temporaryDirectory } from "./support.ts";

test("the authority is made once, for ten years, and its key is the owner's alone", async () => {
  // Prevents: a new authority at each start, which no tenant and no browser would trust.
  const directory = await temporaryDirectory();
  const files = await ensureAuthority(directory);
  const text = readFileSync(files.certificate, "utf8");
  const certificate = new X509Certificate(text);
  expect(certificate.ca).toBe(true);
  expect(certificate.verify(certificate.publicKey)).toBe(true);
  expect(new Date(certificate.validTo).getTime() - Date.now()).toBeGreaterThan(9.9 * 365 * 86_400_000);
  expect(statSync(files.key).mode & 0o077).toBe(0);
  await ensureAuthority(directory);
  expect(readFileSync(files.certificate, "utf8")).toBe(text);
});

test("the gateway can mint from it", async () => {
  // Prevents: a key in a form that its only reader does not take.
  const authority = await ensureAuthority(await temporaryDirectory());
  const certificates = await Certificates.load({
    directory: await temporaryDirectory(),
    authority,
    isRouted: () => true,
    onProblem: (...problem: unknown[]) => expect.unreachable(String(problem)),
  });
  expect(await certificates.contextFor("clinic-a.localhost")).toBeDefined();
});

test("files that do not belong together are an error, not a new authority", async () => {
  // Prevents: replacing an authority that clients trust because its key went missing.
  const [one, two] = [
    await ensureAuthority(await temporaryDirectory()),
    await ensureAuthority(await temporaryDirectory()),
  ];
  writeFileSync(one.key, readFileSync(two.key));
  const directory = one.certificate.slice(0, -"/ca.crt".length);
  await expect(ensureAuthority(directory)).rejects.toThrow("is not the key of");
  rmSync(one.key);
  await expect(ensureAuthority(directory)).rejects.toThrow("has lost its key");
});
