import { type Dispatcher, request } from "undici";

/** The Kubernetes API as plain JSON: many thousands of objects are to be made at the API server's speed, not at a client library's. */
export class ObjectClient {
  readonly #url: string;
  readonly #token: string;
  readonly #dispatcher: Dispatcher;

  constructor(url: string, token: string, dispatcher: Dispatcher) {
    this.#url = url;
    this.#token = token;
    this.#dispatcher = dispatcher;
  }

  create<T extends object>(path: string, body: T): Promise<T & Made> {
    return this.#json("POST", path, body);
  }

  replace<T extends object>(path: string, body: T): Promise<T & Made> {
    return this.#json("PUT", path, body);
  }

  /** A merge patch. */
  patch<T extends object>(path: string, body: T): Promise<Made> {
    return this.#json("PATCH", path, body, "application/merge-patch+json");
  }

  get<T>(path: string): Promise<T> {
    return this.#json("GET", path);
  }

  async text(path: string): Promise<string> {
    const { statusCode, body } = await this.#request("GET", path);
    const text = await body.text();
    if (statusCode >= 300) throw new Error(`GET ${path}: ${statusCode} ${text.slice(0, 300)}`);
    return text;
  }

  /** Follows one object until it is as it should be. @throws Error after that time */
  async follow<T>(path: string, name: string, isSo: (object: T) => boolean, withinMs: number): Promise<T> {
    const signal = AbortSignal.timeout(withinMs);
    const query = `watch=true&fieldSelector=metadata.name%3D${name}`;
    const { body } = await this.#request("GET", `${path}?${query}`, undefined, undefined, signal);
    let rest = "";
    try {
      for await (const chunk of body.setEncoding("utf8")) {
        const lines = (rest + String(chunk)).split("\n");
        rest = lines.pop() ?? "";
        const found = lines.map((line) => (JSON.parse(line) as { object: T }).object).find(isSo);
        // Leaving the loop ends the request.
        if (found) return found;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    throw new Error(`${path}/${name} did not become what it should within ${withinMs / 1000} s`);
  }

  async #json<T>(method: Dispatcher.HttpMethod, path: string, given?: object, type?: string): Promise<T> {
    const { statusCode, body } = await this.#request(method, path, given, type);
    const text = await body.text();
    if (statusCode >= 300) throw new Error(`${method} ${path}: ${statusCode} ${text.slice(0, 500)}`);
    return JSON.parse(text) as T;
  }

  #request(
    method: Dispatcher.HttpMethod,
    path: string,
    body?: object,
    type = "application/json",
    signal?: AbortSignal,
  ) {
    return request(`${this.#url}${path}`, {
      method,
      dispatcher: this.#dispatcher,
      headers: { authorization: `Bearer ${this.#token}`, "content-type": type },
      body: body === undefined ? null : JSON.stringify(body),
      ...(signal ? { signal } : {}),
    });
  }
}

/** What the API server adds. */
export interface Made {
  metadata: { name: string; uid: string; resourceVersion: string };
}

/** Does something for each, some of them at a time. */
export async function forAll<T>(items: readonly T[], atOnce: number, work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < items.length) await work(items[next++]!);
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
}
