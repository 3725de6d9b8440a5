import { createHash } from "node:crypto";
import { AuthenticationV1Api, type KubeConfig, type V1TokenReviewStatus } from "@kubernetes/client-node";
import { dropOldest } from "../../../model/drop-oldest.ts";
import { messageOf, UserError } from "../../../model/errors.ts";
import { grantOf } from "../../../model/grant.ts";
import type { Actor } from "../../../model/role.ts";
import type { KubernetesSignIn } from "../../../model/sign-in.ts";
import { apiClient } from "../client.ts";

/** A token that was taken back, or a group that somebody left, counts for this long. */
const KNOWN_MS = 60_000;
const MOST_KNOWN = 1000;
/** Anybody who reaches the port can make up tokens; the API server is not to answer for each of them. Those that were good do not count. */
const MOST_REVIEWS = 50;
const REVIEWS_PER_MS = 10_000;

/** Whose token of the API server one is: the API server says. */
export class TokenReviews {
  readonly #ask: (token: string) => Promise<V1TokenReviewStatus | undefined>;
  readonly #roles: KubernetesSignIn["roles"];
  readonly #now: () => number;
  readonly #known = new Map<string, { at: number; actor: Promise<Actor | undefined> }>();
  /** Digests of tokens that were good when they were last reviewed, newest last. Made-up ones neither push them out nor keep them waiting. */
  readonly #good = new Set<string>();
  #asked: number[] = [];

  /** @param ask a TokenReview's status */
  constructor(
    { roles }: KubernetesSignIn,
    ask: (token: string) => Promise<V1TokenReviewStatus | undefined>,
    now: () => number = () => performance.now(),
  ) {
    this.#roles = roles;
    this.#ask = ask;
    this.#now = now;
  }

  static of(config: KubeConfig, signIn: KubernetesSignIn): TokenReviews {
    const api = apiClient(config, AuthenticationV1Api);
    return new TokenReviews(
      signIn,
      async (token) => (await api.createTokenReview({ body: { spec: { token } } })).status,
    );
  }

  /** @throws UserError Unavailable where the API server does not say */
  async actorOf(token: string): Promise<Actor | undefined> {
    // Nothing else is one: the API server need not be asked for every password that somebody tries.
    if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return undefined;
    const digest = createHash("sha256").update(token).digest("hex");
    const now = this.#now();
    const known = this.#known.get(digest);
    if (known && now - known.at < KNOWN_MS) return known.actor;
    if (!this.#good.has(digest)) this.#countUnknown(now);
    const actor = this.#review(token);
    this.#known.delete(digest);
    this.#known.set(digest, { at: now, actor });
    actor.then(
      (found) => this.#learn(digest, found !== undefined),
      () => this.#known.delete(digest),
    );
    dropOldest(this.#known, MOST_KNOWN);
    return actor;
  }

  #countUnknown(now: number): void {
    this.#asked = this.#asked.filter((at) => now - at < REVIEWS_PER_MS);
    if (this.#asked.length >= MOST_REVIEWS)
      throw new UserError("Unavailable", "too many unknown tokens are being tried; try again in a few seconds");
    this.#asked.push(now);
  }

  #learn(digest: string, isGood: boolean): void {
    this.#good.delete(digest);
    if (isGood) this.#good.add(digest);
    dropOldest(this.#good, MOST_KNOWN);
  }

  async #review(token: string): Promise<Actor | undefined> {
    const status = await this.#ask(token).catch((error: unknown) => {
      throw new UserError("Unavailable", `the API server does not say whose token it is: ${messageOf(error)}`, {
        cause: error,
      });
    });
    const { username, groups = [] } = status?.user ?? {};
    if (status?.authenticated !== true || username === undefined) return undefined;
    const grant = this.#roles.find(({ user, group }) =>
      user === undefined ? group !== undefined && groups.includes(group) : user === username,
    );
    return grant && { name: `kubernetes:${username}`, ...grantOf(grant) };
  }
}
