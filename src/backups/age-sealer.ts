import { Decrypter, Encrypter } from "age-encryption";
import { messageOf, UserError } from "../model/errors.ts";
import type { Sealer } from "../ports/backups.ts";

/** Files of age (https://age-encryption.org): `age --decrypt` opens them as well. */
export const ageSealer: Sealer = {
  async seal(recipient, content) {
    const encrypter = new Encrypter();
    try {
      encrypter.addRecipient(recipient);
    } catch (error) {
      throw new UserError("InvalidConfig", `backups.recipient is no recipient of age: ${messageOf(error)}`, {
        cause: error,
      });
    }
    return encrypter.encrypt(content);
  },
  async open(identity, sealed) {
    const decrypter = new Decrypter();
    try {
      for (const line of identity.split("\n")) {
        const key = line.trim();
        if (key !== "" && !key.startsWith("#")) decrypter.addIdentity(key);
      }
    } catch {
      // The library's words quote the key.
      throw new UserError("InvalidInput", "the identity is not a file of age-keygen: it has lines AGE-SECRET-KEY-…");
    }
    try {
      return await decrypter.decrypt(sealed, "uint8array");
    } catch (error) {
      throw new UserError(
        "InvalidInput",
        `the identity does not open the keys of this backup: ${messageOf(error)}; give the private key of the recipient it was made for`,
        { cause: error },
      );
    }
  },
};
