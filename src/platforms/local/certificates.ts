import { createPublicKey, randomBytes, webcrypto, X509Certificate as NodeCertificate } from "node:crypto";
import { chmodSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import "../../model/reflect-metadata.ts";
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { UserError } from "../../model/errors.ts";
import { writeAtomically } from "./files.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY_MS = 86_400_000;
const VALID_DAYS = 3650;

export interface AuthorityFiles {
  certificate: string;
  key: string;
}

/**
 * The cluster's own certificate authority, made once: the gateway mints certificates from it, and tenants trust it. The key
 * is written first, so that a crash between the two leaves nothing that looks complete.
 * @throws UserError Environment when one of the two is missing or they do not belong together
 */
export async function ensureAuthority(directory: string, now = new Date()): Promise<AuthorityFiles> {
  const files = { certificate: join(directory, "ca.crt"), key: join(directory, "ca.key") };
  if (existsSync(files.certificate)) {
    if (!existsSync(files.key)) {
      throw new UserError(
        "Environment",
        `${files.certificate} has lost its key: put ca.key back, or remove ca.crt to have a new authority made`,
      );
    }
    check(files);
    publish(files.certificate);
    return files;
  }
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: `00${randomBytes(15).toString("hex")}`,
    // The random part tells authorities of different clusters apart in a trust store.
    name: `CN=synapse-shards local authority ${randomBytes(3).toString("hex")}`,
    notBefore: new Date(now.getTime() - DAY_MS),
    notAfter: new Date(now.getTime() + VALID_DAYS * DAY_MS),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey));
  const pem = `-----BEGIN PRIVATE KEY-----\n${der
    .toString("base64")
    .match(/.{1,64}/g)!
    .join("\n")}\n-----END PRIVATE KEY-----\n`;
  writeAtomically(files.key, pem);
  writeAtomically(files.certificate, `${certificate.toString("pem")}\n`);
  publish(files.certificate);
  return files;
}

/** Shards, which have users of their own, trust it. */
function publish(certificate: string): void {
  chmodSync(certificate, 0o644);
}

function check(files: AuthorityFiles): void {
  let fits: boolean;
  try {
    const certificate = new NodeCertificate(readFileSync(files.certificate));
    const key = createPublicKey(readFileSync(files.key));
    fits = certificate.ca && certificate.publicKey.equals(key);
  } catch (error) {
    throw new UserError("Environment", `${files.certificate} or its key cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (!fits) throw new UserError("Environment", `${files.key} is not the key of ${files.certificate}`);
}
