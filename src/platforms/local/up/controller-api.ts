import { Agent, request } from "undici";
import { UserError } from "../../../model/errors.ts";

/** Registering a user waits for Synapse, and is the slowest. */
const ANSWER_MS = 60_000;

/** The controller's HTTP API, as far as `up` needs it. */
export class ControllerApi {
  readonly #url: string;
  readonly #token: string;
  readonly #agent = new Agent({ keepAliveTimeout: 1_000 });

  constructor(url: string, token: string) {
    this.#url = url;
    this.#token = token;
  }

  /** @returns status and body of any answer; @throws UserError Unavailable when there is none */
  async call(
    method: "GET" | "POST",
    path: string,
    body?: unknown,
    signal?: AbortSignal,
  ): Promise<{ status: number; body: unknown }> {
    const limit = AbortSignal.timeout(ANSWER_MS);
    try {
      const response = await request(`${this.#url}${path}`, {
        method,
        dispatcher: this.#agent,
        headers: {
          authorization: `Bearer ${this.#token}`,
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        body: body === undefined ? null : JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, limit]) : limit,
      });
      const text = await response.body.text();
      return { status: response.statusCode, body: text === "" ? undefined : JSON.parse(text) };
    } catch (error) {
      signal?.throwIfAborted();
      throw new UserError("Unavailable", "the controller does not answer", { cause: error });
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}
