import { createHmac, timingSafeEqual } from "node:crypto";

/** Set by one replica of the controller on what it passes to another. */
export const REPLICA_HEADER = "x-synapse-shards-replica";

/**
 * How replicas of the controller know each other: by what only those can make who read the Secret of the tokens. Pods that reach the port, and
 * proxies, cannot.
 */
export class ReplicaProof {
  readonly #tokens: () => readonly string[];

  /** @param tokens those of the API that are good now */
  constructor(tokens: () => readonly string[]) {
    this.#tokens = tokens;
  }

  /** For the header; undefined before the tokens are known. */
  make(): string | undefined {
    const [token] = this.#tokens();
    return token === undefined ? undefined : proofOf(token);
  }

  isGood(given: unknown): boolean {
    if (typeof given !== "string") return false;
    const digest = digestOf(given);
    return this.#tokens().some((token) => timingSafeEqual(digest, digestOf(proofOf(token))));
  }
}

function proofOf(token: string): string {
  return createHmac("sha256", token).update("synapse-shards replica of the controller").digest("base64url");
}

/** Digests have one length. */
function digestOf(text: string): Buffer {
  return createHmac("sha256", "").update(text).digest();
}
