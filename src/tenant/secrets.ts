import { randomBytes } from "node:crypto";
import type { TenantSecretData } from "../model/resources.ts";

/** Fresh secrets for a new tenant. */
export function newTenantSecrets(serverName: string): TenantSecretData {
  return {
    serverName,
    signingKey: newSigningKey(),
    macaroonSecretKey: token(),
    formSecret: token(),
    registrationSharedSecret: token(),
    databasePassword: token(),
  };
}

/** A signing key file as Synapse reads it: algorithm, key id, and the ed25519 seed in unpadded base64. */
function newSigningKey(): string {
  const id = randomBytes(8).toString("hex").slice(0, 6);
  return `ed25519 a_${id} ${randomBytes(32).toString("base64").replace(/=+$/, "")}\n`;
}

function token(): string {
  return randomBytes(32).toString("base64url");
}
