import type { TestUser } from "../../e2e/support/matrix.ts";
import type { Installation } from "./installation.ts";

/** How long each waits for news, of which there are none: longer than a gateway that goes still takes connections. */
const POLL_MS = 30_000;

/** Devices of one person that wait for news, each on a connection of its own. */
export class Polls {
  #ended = false;
  readonly #devices: TestUser[];
  readonly #loops: Promise<void>[];
  #answered = 0;

  private constructor(devices: TestUser[]) {
    this.#devices = devices;
    this.#loops = devices.map((device) => this.#poll(device));
  }

  /** @param user who is in no room that anything is said in */
  static async begin(cluster: Installation, tenant: string, user: string, number: number): Promise<Polls> {
    return new Polls(await Promise.all(Array.from({ length: number }, () => cluster.logIn(tenant, user))));
  }

  async #poll({ client }: TestUser): Promise<void> {
    let since: string | undefined;
    while (!this.#ended) {
      const query = { timeout: since === undefined ? 0 : POLL_MS, ...(since === undefined ? {} : { since }) };
      // A failure is in the device's list; it does not go on.
      const answer = await client.http
        .authedRequest<{ next_batch: string }>("GET" as never, "/sync", query as never)
        .catch(() => {});
      if (answer === undefined) return;
      since = answer.next_batch;
      this.#answered += 1;
    }
  }

  get answered(): number {
    return this.#answered;
  }

  /** Waits for the answers to all. @returns what failed */
  async end(): Promise<unknown[]> {
    this.#ended = true;
    await Promise.all(this.#loops);
    return this.#devices.flatMap(({ failures }) => failures);
  }
}
