import { randomBytes } from "node:crypto";

/** What must not be seen: one per tenant, same name. Never logged, never in an event, never in an API answer. */
export interface TenantSecretData {
  /** Whose keys these are: they outlive a tenant that was deleted without its data. */
  serverName: string;
  /** Content of Synapse's signing key file: `ed25519 a_XXXX <base64 seed>`. */
  signingKey: string;
  macaroonSecretKey: string;
  formSecret: string;
  registrationSharedSecret: string;
  databasePassword: string;
}

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
