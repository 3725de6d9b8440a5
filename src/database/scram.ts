import { createHash, createHmac, pbkdf2Sync, randomBytes } from "node:crypto";
import { UserError } from "../model/errors.ts";

/** What PostgreSQL uses itself: so many hashes make a password that people chose slower to guess. */
const ITERATIONS = 4096;
/**
 * A secret of 256 random bits, as ours are (`newTenantSecrets`). Nobody guesses it, however quick a guess is; and each connection of a shard
 * computes these hashes anew: with 4096, they were a quarter of the processor time of a start.
 */
const RANDOM = /^[\w-]{43}$/;

/**
 * The verifier PostgreSQL stores for a password (RFC 5802, SCRAM-SHA-256). Given to `ALTER ROLE` in the password's place, it
 * keeps the password out of the server's logs and statistics.
 * @throws UserError InvalidInput for passwords that SASLprep would change (anything but printable ASCII)
 */
export function scramVerifier(password: string, salt: Buffer = randomBytes(16)): string {
  if (!/^[\x20-\x7e]+$/.test(password))
    throw new UserError("InvalidInput", "a database password must be of printable ASCII characters, and not empty");
  const iterations = RANDOM.test(password) ? 1 : ITERATIONS;
  const salted = pbkdf2Sync(password, salt, iterations, 32, "sha256");
  const key = (name: string) => createHmac("sha256", salted).update(name).digest();
  const stored = createHash("sha256").update(key("Client Key")).digest("base64");
  const server = key("Server Key").toString("base64");
  return `SCRAM-SHA-256$${iterations}:${salt.toString("base64")}$${stored}:${server}`;
}
