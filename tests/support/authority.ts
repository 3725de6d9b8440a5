import { webcrypto } from "node:crypto";
import "../../src/certificates/reflect-metadata.ts";
import * as x509 from "@peculiar/x509";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const USAGES: webcrypto.KeyUsage[] = ["sign", "verify"];

/** A certificate authority that nobody knows, such as companies have for their own servers. */
export class Authority {
  /** Its own certificate. */
  readonly pem: string;
  readonly #name: string;
  readonly #keys: webcrypto.CryptoKeyPair;

  private constructor(keys: webcrypto.CryptoKeyPair, name: string, pem: string) {
    this.#name = name;
    this.#keys = keys;
    this.pem = pem;
  }

  static async make(name = "CN=Authority"): Promise<Authority> {
    x509.cryptoProvider.set(webcrypto as never);
    const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, USAGES);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      ...times(),
      name,
      keys,
      signingAlgorithm: ALGORITHM,
      extensions: [new x509.BasicConstraintsExtension(true)],
    });
    return new Authority(keys, name, certificate.toString("pem"));
  }

  /** A certificate for servers with these names in DNS. */
  async issue(names: readonly string[]): Promise<{ certificate: string; key: string }> {
    const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, USAGES);
    const certificate = await x509.X509CertificateGenerator.create({
      ...times(),
      subject: "CN=server",
      issuer: this.#name,
      publicKey: keys.publicKey,
      signingKey: this.#keys.privateKey,
      signingAlgorithm: ALGORITHM,
      extensions: [new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: "dns", value })))],
    });
    const key = x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
    return { certificate: certificate.toString("pem"), key };
  }
}

function times(): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(Date.now() - 60_000), notAfter: new Date(Date.now() + 12 * 3_600_000) };
}
