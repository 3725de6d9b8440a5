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

  /** @returns the page that it ends on, without a form to be filled in; or an address that is not of this machine */
  async visit(url: string, answers: Record<string, string>): Promise<string> {
    let [method, target, body] = ["GET", url, undefined as string | undefined];
    for (let steps = 0; steps < 20; steps += 1) {
      if (new URL(target).hostname.endsWith(".example")) return target;
      const { status, location, page } = await this.#ask(method, target, body);
      const form = formIn(page);
      if (location !== undefined) [method, target, body] = ["GET", new URL(location, target).href, undefined];
      else if (form)
        [method, target, body] = ["POST", new URL(form.action ?? target, target).href, filledIn(form.html, answers)];
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

/** The first one that is not for leaving. */
function formIn(page: string): { action: string | undefined; html: string } | undefined {
  for (const [, attributes = "", html = ""] of page.matchAll(/<form([^>]*)>(.*?)<\/form>/gis)) {
    const action = attributeIn(attributes, "action");
    if (/ method="post"/i.test(attributes) && !action?.endsWith("/logout")) return { action, html };
  }
  return undefined;
}

/** As if its first button was pressed. */
function filledIn(form: string, answers: Record<string, string>): string {
  const fields = new URLSearchParams();
  for (const [input] of form.matchAll(/<input[^>]*>/gs)) {
    const name = attributeIn(input, "name");
    if (name !== undefined) fields.set(name, answers[name] ?? attributeIn(input, "value") ?? "");
  }
  const [button = ""] = /<button[^>]*>/s.exec(form) ?? [];
  const name = attributeIn(button, "name");
  if (name) fields.set(name, attributeIn(button, "value") ?? "");
  return fields.toString();
}

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"' };

function attributeIn(tag: string, name: string): string | undefined {
  const value = new RegExp(`\\s${name}="([^"]*)"`, "s").exec(tag)?.[1];
  return value?.replaceAll(/&(?:#x([0-9a-f]+)|#(\d+)|(amp|lt|gt|quot));/gi, (_all, hex, decimal, named) =>
    named ? ENTITIES[named.toLowerCase()]! : String.fromCodePoint(hex ? Number.parseInt(hex, 16) : Number(decimal)),
  );
}
