import { hkdfSync, randomUUID } from "node:crypto";
import { EncryptJWT, jwtDecrypt } from "jose";

/** A working day with its handover: long enough not to sign in twice, short enough for a machine that was left open. */
export const SESSION_SECONDS = 12 * 3_600;

export interface Session {
  id: string;
  /** SHA-256 of the token that it stands for, in hexadecimal: what that token may do now is what the session may. */
  digest: string;
  expiresAt: Date;
}

const ISSUER = "synapse-shards console";

/**
 * Sessions of browsers, sealed into the cookie itself: they outlast the controller that made them, and are good at its successor. The key comes
 * from the owner's token, so that another token of the owner ends them all.
 */
export class Sessions {
  readonly #ownerTokens: () => readonly string[];
  readonly #now: () => Date;
  /** Sessions that were signed out, until they would have ended. */
  readonly #ended = new Map<string, Date>();

  constructor(ownerTokens: () => readonly string[], now: () => Date = () => new Date()) {
    this.#ownerTokens = ownerTokens;
    this.#now = now;
  }

  /** @param digest of the token @returns what the cookie holds, and until when it is good */
  async begin(digest: string): Promise<{ sealed: string; expiresAt: Date }> {
    const expiresAt = new Date(this.#now().getTime() + SESSION_SECONDS * 1000);
    const sealed = await new EncryptJWT({ digest })
      .setProtectedHeader({ alg: "dir", enc: "A256GCM" })
      .setIssuer(ISSUER)
      .setJti(randomUUID())
      .setExpirationTime(expiresAt)
      .encrypt(keyFrom(this.#ownerTokens()[0] ?? ""));
    return { sealed, expiresAt };
  }

  /** @returns undefined for one that was not made here, has ended, or was signed out */
  async open(sealed: string): Promise<Session | undefined> {
    for (const token of this.#ownerTokens()) {
      const session = await this.#opened(sealed, keyFrom(token));
      if (session) return this.#ended.has(session.id) ? undefined : session;
    }
    return undefined;
  }

  end({ id, expiresAt }: Session): void {
    const now = this.#now();
    for (const [old, until] of this.#ended) if (until < now) this.#ended.delete(old);
    this.#ended.set(id, expiresAt);
  }

  async #opened(sealed: string, key: Uint8Array): Promise<Session | undefined> {
    try {
      const { payload } = await jwtDecrypt(sealed, key, { issuer: ISSUER, currentDate: this.#now() });
      const { jti, exp, digest } = payload;
      if (jti === undefined || exp === undefined || typeof digest !== "string") return undefined;
      return { id: jti, digest, expiresAt: new Date(exp * 1000) };
    } catch {
      // Sealed with another key, changed, or ended: who it is from is not known, and why does not matter.
      return undefined;
    }
  }
}

function keyFrom(ownerToken: string): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", ownerToken, "", ISSUER, 32));
}

/** How browsers come in. */
export interface ConsoleAccess {
  sessions: Sessions;
  /** Names besides localhost under which the console is reached. */
  hosts: readonly string[];
}
