import { createPublicKey, verify } from "node:crypto";
import { z } from "zod";

const base64 = z.string().regex(/^[A-Za-z0-9+/]{1,100}={0,2}$/);
const KeysSchema = z.looseObject({
  server_name: z.string(),
  valid_until_ts: z.number(),
  verify_keys: z.record(z.string(), z.object({ key: base64 })),
  signatures: z.record(z.string(), z.record(z.string(), base64)),
});

export type ServerKeys = { keys: Record<string, string> } | { problem: string };

/** DER of an Ed25519 public key, before its 32 bytes. */
const SPKI = Buffer.from("302a300506032b6570032100", "hex");
const ED25519 = /^ed25519:/;

/** Checks the answer of `/_matrix/key/v2/server` as other servers do. @param now milliseconds since the epoch */
export function readServerKeys(text: string, serverName: string, now: number): ServerKeys {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return { problem: "it is no JSON" };
  }
  const parsed = KeysSchema.safeParse(document);
  if (!parsed.success)
    return { problem: `${parsed.error.issues[0]?.path.join(".")} is not as the specification has it` };
  const { server_name, valid_until_ts, verify_keys, signatures } = parsed.data;
  if (server_name !== serverName) return { problem: `it is of ${JSON.stringify(server_name)}` };
  if (valid_until_ts <= now) return { problem: `it was valid until ${new Date(valid_until_ts).toISOString()}` };
  const { signatures: _signatures, unsigned: _unsigned, ...signed } = document as Record<string, unknown>;
  const message = Buffer.from(canonicalJson(signed));
  const keys: Record<string, string> = {};
  for (const [id, { key }] of Object.entries(verify_keys).filter(([id]) => ED25519.test(id))) {
    const signature = signatures[serverName]?.[id];
    if (signature === undefined) return { problem: `it is not signed by its key ${id}` };
    if (!isSignedBy(message, key, signature)) return { problem: `its signature by the key ${id} is wrong` };
    keys[id] = key.replace(/=+$/, "");
  }
  return Object.keys(keys).length === 0 ? { problem: "it has no Ed25519 key" } : { keys };
}

function isSignedBy(message: Buffer, key: string, signature: string): boolean {
  const raw = Buffer.from(key, "base64");
  if (raw.length !== 32) return false;
  const publicKey = createPublicKey({ key: Buffer.concat([SPKI, raw]), format: "der", type: "spki" });
  return verify(null, message, publicKey, Buffer.from(signature, "base64"));
}

/** JSON as it is signed: keys in order, nothing between. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).toSorted(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return `{${entries.map(([key, one]) => `${JSON.stringify(key)}:${canonicalJson(one)}`).join(",")}}`;
}
