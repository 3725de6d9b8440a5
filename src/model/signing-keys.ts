import { createPrivateKey, createPublicKey } from "node:crypto";

/** DER of an Ed25519 private key, before its 32 bytes. */
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");

/** The public keys, by id, of the content of Synapse's signing key file. */
export function publicKeysOf(signingKey: string): Record<string, string> {
  const keys: Record<string, string> = {};
  for (const line of signingKey.split("\n")) {
    const [algorithm, version, seed = ""] = line.trim().split(/\s+/);
    const raw = Buffer.from(seed, "base64");
    if (algorithm !== "ed25519" || version === undefined || raw.length !== 32) continue;
    const key = createPrivateKey({ key: Buffer.concat([PKCS8, raw]), format: "der", type: "pkcs8" });
    const { x = "" } = createPublicKey(key).export({ format: "jwk" });
    keys[`ed25519:${version}`] = Buffer.from(x, "base64url").toString("base64").replace(/=+$/, "");
  }
  return keys;
}
