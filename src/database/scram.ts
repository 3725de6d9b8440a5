import { createHash, createHmac, pbkdf2Sync, randomBytes } from "node:crypto";
import { UserError } from "../model/errors.ts";

/** What PostgreSQL uses itself. */
const ITERATIONS = 4096;

/**
 * The verifier PostgreSQL stores for a password (RFC 5802, SCRAM-SHA-256). Given to `ALTER ROLE` in the password's place, it
 * keeps the password out of the server's logs and statistics.
 * @throws UserError InvalidInput for passwords that SASLprep would change (anything but printable ASCII)
 */
export function scramVerifier(password: string, salt: Buffer = randomBytes(16)): string {
  if (!/^[\x20-\x7e]+$/.test(password))
    throw new UserError("InvalidInput", "a database password must be of printable ASCII characters, and not empty");
  const salted = pbkdf2Sync(password, salt, ITERATIONS, 32, "sha256");
  const key = (name: string) => createHmac("sha256", salted).update(name).digest();
  const stored = createHash("sha256").update(key("Client Key")).digest("base64");
  const server = key("Server Key").toString("base64");
  return `SCRAM-SHA-256$${ITERATIONS}:${salt.toString("base64")}$${stored}:${server}`;
}
