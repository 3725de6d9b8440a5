import "../certificates/reflect-metadata.ts";
import { AuthorityKeyIdentifierExtension, X509Certificate } from "@peculiar/x509";

/** How an authority knows a certificate (RFC 9773, 4.1): the identifier of its issuer's key, and its serial number. @param pem of a chain, its first */
export function ariIdOf(pem: string): string | undefined {
  const certificate = new X509Certificate(pem);
  const keyId = certificate.getExtension(AuthorityKeyIdentifierExtension)?.keyId;
  if (keyId === undefined) return undefined;
  const serial = certificate.serialNumber.length % 2 === 0 ? certificate.serialNumber : `0${certificate.serialNumber}`;
  const bytes = Buffer.from(serial, "hex");
  // As DER has it: a number whose first bit is set begins with a zero.
  const positive = (bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes;
  return `${Buffer.from(keyId, "hex").toString("base64url")}.${positive.toString("base64url")}`;
}
