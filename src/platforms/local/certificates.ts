import {
  createPrivateKey,
  createPublicKey,
  randomBytes,
  webcrypto,
  X509Certificate as NodeCertificate,
} from "node:crypto";
import { chmodSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import "../../certificates/reflect-metadata.ts";
import {
  BasicConstraintsExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { encodeNameConstraints, NAME_CONSTRAINTS } from "../../certificates/name-constraints.ts";
import { UserError } from "../../model/errors.ts";
import { writeAtomically } from "./files.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY_MS = 86_400_000;
/** Clients that trust it have to be given the next one; renewed after half of it, so that there is half a year for that. */
const VALID_DAYS = 365;

export interface AuthorityFiles {
  certificate: string;
  key: string;
}

/**
 * The cluster's own certificate authority: the gateway mints certificates from it, and tenants trust it. It may sign for `domains` and names below
 * them only, so that who has its key cannot pass for the rest of the world. When these change, or half of its time is over, it is issued again with
 * the same key: clients that trust the one before go on as long as that is valid, for the names that it had. The key is written first, so that a
 * crash between the two leaves nothing that looks complete.
 * @throws UserError Environment when one of the two is missing or they do not belong together
 */
export async function ensureAuthority(
  directory: string,
  domains: readonly string[],
  now = new Date(),
): Promise<AuthorityFiles> {
  const files = { certificate: join(directory, "ca.crt"), key: join(directory, "ca.key") };
  const constraints = encodeNameConstraints([...new Set(domains)].toSorted());
  if (existsSync(files.certificate)) {
    if (!existsSync(files.key)) {
      throw new UserError(
        "Environment",
        `${files.certificate} has lost its key: put ca.key back, or remove ca.crt to have a new authority made`,
      );
    }
    check(files);
    const present = new X509Certificate(readFileSync(files.certificate, "utf8"));
    const isCurrent = constraints.equals(
      Buffer.from(present.getExtension(NAME_CONSTRAINTS)?.value ?? new ArrayBuffer()),
    );
    const left = present.notAfter.getTime() - now.getTime();
    if (isCurrent && left > (VALID_DAYS / 2) * DAY_MS) {
      publish(files.certificate);
      return files;
    }
    await issue(files.certificate, await readKeys(files.key), present.subject, constraints, now);
    return files;
  }
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey));
  const pem = `-----BEGIN PRIVATE KEY-----\n${der
    .toString("base64")
    .match(/.{1,64}/g)!
    .join("\n")}\n-----END PRIVATE KEY-----\n`;
  writeAtomically(files.key, pem);
  // The random part tells authorities of different clusters apart in a trust store.
  const name = `CN=synapse-shards local authority ${randomBytes(3).toString("hex")}`;
  await issue(files.certificate, keys, name, constraints, now);
  return files;
}

async function issue(
  file: string,
  keys: webcrypto.CryptoKeyPair,
  name: string,
  constraints: Buffer,
  now: Date,
): Promise<void> {
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: `00${randomBytes(15).toString("hex")}`,
    name,
    notBefore: new Date(now.getTime() - DAY_MS),
    notAfter: new Date(now.getTime() + VALID_DAYS * DAY_MS),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
      new Extension(NAME_CONSTRAINTS, true, constraints),
    ],
  });
  writeAtomically(file, `${certificate.toString("pem")}\n`);
  publish(file);
}

/** Shards, which have users of their own, trust it. */
function publish(certificate: string): void {
  chmodSync(certificate, 0o644);
}

async function readKeys(file: string): Promise<webcrypto.CryptoKeyPair> {
  const privateKey = createPrivateKey(readFileSync(file));
  const [pkcs8, spki] = [
    privateKey.export({ type: "pkcs8", format: "der" }),
    createPublicKey(privateKey).export({ type: "spki", format: "der" }),
  ];
  return {
    privateKey: await webcrypto.subtle.importKey("pkcs8", pkcs8, ALGORITHM, true, ["sign"]),
    publicKey: await webcrypto.subtle.importKey("spki", spki, ALGORITHM, true, ["verify"]),
  };
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
