import { hkdfSync, randomUUID } from "node:crypto";
import { EncryptJWT, jwtDecrypt } from "jose";
import { z } from "zod";
import { RememberedEnds, type EndedSessions } from "./ended-sessions.ts";

/** A working day with its handover: long enough not to sign in twice, short enough for a machine that was left open. */
export const SESSION_SECONDS = 12 * 3_600;

const SubjectSchema = z.discriminatedUnion("kind", [
  /** SHA-256 of a token, in hexadecimal. */
  z.object({ kind: z.literal("token"), digest: z.string() }),
  /** A token of the API server of Kubernetes, which alone can say whose it is. */
  z.object({ kind: z.literal("kubernetes"), token: z.string() }),
  /** Of a person of this cluster. */
  z.object({ kind: z.literal("account"), name: z.string(), generation: z.int() }),
  /** What the provider said at the sign-in. */
  z.object({ kind: z.literal("oidc"), person: z.object({ name: z.string(), groups: z.array(z.string()) }) }),
]);
/** What a request or a session stands for: what that may do now is what the session may. */
export type Subject = z.infer<typeof SubjectSchema>;

export interface Session {
  id: string;
  subject: Subject;
  expiresAt: Date;
}

const ISSUER = "synapse-shards console";

/**
 * Sessions of browsers, sealed into the cookie itself: they outlast the controller that made them, and are good at its successor. The key comes
 * from the owner's token, so that another token of the owner ends them all. Those that were signed out are written down until they would have ended.
 */
export class Sessions {
  readonly #ownerTokens: () => readonly string[];
  readonly #now: () => Date;
  readonly #ended: EndedSessions;

  constructor(
    ownerTokens: () => readonly string[],
    now: () => Date = () => new Date(),
    ended: EndedSessions = new RememberedEnds(),
  ) {
    this.#ownerTokens = ownerTokens;
    this.#now = now;
    this.#ended = ended;
  }

  /** @returns what the cookie holds, and until when it is good */
  async begin(subject: Subject): Promise<{ sealed: string; expiresAt: Date }> {
    const expiresAt = new Date(this.#now().getTime() + SESSION_SECONDS * 1000);
    const sealed = await this.seal({ subject }, { purpose: ISSUER, expiresAt });
    return { sealed, expiresAt };
  }

  /** @returns undefined for one that was not made here, has ended, or was signed out */
  async open(sealed: string): Promise<Session | undefined> {
    const payload = await this.unseal(sealed, ISSUER);
    const subject = SubjectSchema.safeParse(payload?.["subject"]);
    if (!payload || !subject.success || this.#ended.has(payload.id)) return undefined;
    return { id: payload.id, subject: subject.data, expiresAt: payload.expiresAt };
  }

  /** @throws what keeps it from being written down: it would be good again after a restart */
  async end({ id, expiresAt }: Session): Promise<void> {
    await this.#ended.add(id, expiresAt, this.#now());
  }

  /** Something that a browser keeps for us and can neither read nor change. @param purpose what it is good for, and for nothing else */
  seal(
    content: Record<string, unknown>,
    { purpose, expiresAt }: { purpose: string; expiresAt: Date },
  ): Promise<string> {
    return new EncryptJWT(content)
      .setProtectedHeader({ alg: "dir", enc: "A256GCM" })
      .setIssuer(purpose)
      .setJti(randomUUID())
      .setExpirationTime(expiresAt)
      .encrypt(keyFrom(this.#ownerTokens()[0] ?? ""));
  }

  /** @returns undefined where it was sealed by somebody else, for something else, or its time is over */
  async unseal(
    sealed: string,
    purpose: string,
  ): Promise<(Record<string, unknown> & { id: string; expiresAt: Date }) | undefined> {
    for (const token of this.#ownerTokens())
      try {
        const options = { issuer: purpose, currentDate: this.#now() };
        const { payload } = await jwtDecrypt(sealed, keyFrom(token), options);
        const { jti, exp } = payload;
        if (jti !== undefined && exp !== undefined) return { ...payload, id: jti, expiresAt: new Date(exp * 1000) };
      } catch {
        // Sealed with another key, changed, or ended: who it is from is not known, and why does not matter.
      }
    return undefined;
  }
}

function keyFrom(ownerToken: string): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", ownerToken, "", ISSUER, 32));
}
