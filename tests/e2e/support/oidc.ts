import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Provider } from "oidc-provider";
import { request } from "undici";

const CLIENT = { client_id: "synapse", client_secret: "secret-of-the-tests" };

/** An OpenID provider that is not ours: every name and password is a user of it, who then has to consent. */
export class OidcProvider {
  readonly #server: Server;
  #answer: RequestListener = (_incoming, response) => void response.writeHead(503).end();

  private constructor(server: Server) {
    this.#server = server;
    server.on("request", (incoming, response) => this.#answer(incoming, response));
  }

  /** Listens; answers once it knows who asks. */
  static async listen(): Promise<OidcProvider> {
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    return new OidcProvider(server);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get issuer(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** As a tenant's homeserver.yaml has it. */
  get settings() {
    return {
      idp_id: "own",
      idp_name: "Own",
      issuer: this.issuer,
      ...CLIENT,
      scopes: ["openid"],
      user_mapping_provider: { config: { localpart_template: "{{ user.sub }}" } },
    };
  }

  /** @param redirectUri where the homeserver takes users back */
  trust(redirectUri: string): void {
    const provider = new Provider(this.issuer, {
      clients: [{ ...CLIENT, redirect_uris: [redirectUri] }],
      cookies: { keys: ["key-of-the-tests"] },
    });
    const answer = provider.callback();
    this.#answer = (incoming, response) => void answer(incoming, response);
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

/** What a person with a browser does, as far as signing in needs it: follows redirects, keeps cookies, fills in forms. */
export class Browser {
  readonly #cookies = new Map<string, Map<string, string>>();
  /** Every address that was asked for. */
  readonly visited: string[] = [];

  /** @returns the page that it ends on, without a form to be filled in */
  async visit(url: string, answers: Record<string, string>): Promise<string> {
    let [method, target, body] = ["GET", url, undefined as string | undefined];
    for (let steps = 0; steps < 20; steps += 1) {
      const { status, location, page } = await this.#ask(method, target, body);
      const form = /<form[^>]* action="([^"]+)" method="post">(.*?)<\/form>/s.exec(page);
      if (location !== undefined) [method, target, body] = ["GET", new URL(location, target).href, undefined];
      else if (form) [method, target, body] = ["POST", new URL(form[1]!, target).href, filledIn(form[2]!, answers)];
      else if (status === 200) return page;
      else throw new Error(`${target} answers ${status}: ${page.slice(0, 500)}`);
    }
    throw new Error(`too many steps: ${this.visited.join(", ")}`);
  }

  async #ask(method: string, url: string, body: string | undefined) {
    this.visited.push(url);
    const { host, port, hostname, pathname, search } = new URL(url);
    const jar = this.#cookies.get(hostname) ?? new Map<string, string>();
    this.#cookies.set(hostname, jar);
    const answer = await request(`http://127.0.0.1:${port}${pathname}${search}`, {
      method: method as "GET" | "POST",
      headers: {
        host,
        cookie: [...jar].map(([name, value]) => `${name}=${value}`).join("; "),
        ...(body === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }),
      },
      body: body ?? null,
    });
    for (const cookie of [answer.headers["set-cookie"] ?? []].flat()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie)!;
      if (value === "") jar.delete(name!);
      else jar.set(name!, value!);
    }
    const location = [answer.headers["location"]].flat()[0];
    return { status: answer.statusCode, location, page: await answer.body.text() };
  }
}

function filledIn(form: string, answers: Record<string, string>): string {
  const fields = new URLSearchParams();
  for (const [input] of form.matchAll(/<input[^>]*>/g)) {
    const name = / name="([^"]+)"/.exec(input)?.[1];
    if (name !== undefined) fields.set(name, answers[name] ?? / value="([^"]*)"/.exec(input)?.[1] ?? "");
  }
  return fields.toString();
}
