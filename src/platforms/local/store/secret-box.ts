import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { UserError } from "../../../model/errors.ts";
import { writeAtomically } from "../files.ts";

const PREFIX = "sealed:1:";
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Texts that can be read with the key only (AES-256-GCM), and only in the place they were written to. */
export class SecretBox {
  readonly #key: Buffer;

  constructor(key: Buffer) {
    if (key.length !== KEY_BYTES) throw new Error(`a key has ${KEY_BYTES} bytes`);
    this.#key = key;
  }

  static isSealed(text: string): boolean {
    return text.startsWith(PREFIX);
  }

  /** @param place what the text belongs to; put elsewhere it cannot be opened */
  seal(place: string, text: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce).setAAD(Buffer.from(place));
    const sealed = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
    return PREFIX + Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString("base64");
  }

  /** @throws Error where key, place or text is not the one it was sealed with */
  open(place: string, text: string): string {
    const bytes = Buffer.from(text.slice(PREFIX.length), "base64");
    const nonce = bytes.subarray(0, NONCE_BYTES);
    const decipher = createDecipheriv("aes-256-gcm", this.#key, nonce, { authTagLength: TAG_BYTES })
      .setAAD(Buffer.from(place))
      .setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
    return decipher.update(bytes.subarray(NONCE_BYTES + TAG_BYTES), undefined, "utf8") + decipher.final("utf8");
  }
}

/**
 * The key in a file, made at the first time.
 * @param mayMake false where something has been sealed with it: another key would open nothing
 * @throws UserError Environment
 */
export function storeKey(file: string, mayMake: boolean): Buffer {
  if (!existsSync(file)) {
    if (!mayMake) {
      throw new UserError(
        "Environment",
        `${file} is missing: it has the key to the secrets in store.db, which nobody can read without it; put it back from a backup`,
      );
    }
    writeAtomically(file, randomBytes(KEY_BYTES).toString("base64url"));
  }
  const key = Buffer.from(readFileSync(file, "utf8").trim(), "base64url");
  if (key.length !== KEY_BYTES)
    throw new UserError("Environment", `${file} is not a key: it has ${key.length} bytes instead of ${KEY_BYTES}`);
  return key;
}
