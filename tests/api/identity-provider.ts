import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Configuration } from "oidc-provider";
import { identityProvider } from "../support/identity-provider.ts";

export { CLIENT_ID, CLIENT_SECRET } from "../support/identity-provider.ts";

/** A real OpenID Connect provider on a free port. Any login works; `groups` says who is in which. */
export async function startIdentityProvider(
  groups: Record<string, string[]>,
  { claimedIssuer, settings = {} }: { claimedIssuer?: string; settings?: Configuration } = {},
) {
  // It comes up.
  const server = createServer((_request, response) => response.writeHead(503).end());
  await new Promise<void>((listening) => void server.listen(0, "127.0.0.1", listening));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const consoles: string[] = [];
  const attempts: URLSearchParams[] = [];
  /** The client's addresses are known only once the API listens. */
  const allow = (consoleUrl: string) => {
    consoles.push(consoleUrl);
    const provider = identityProvider(claimedIssuer ?? issuer, consoles, groups, settings);
    const answer = provider.callback();
    server.removeAllListeners("request");
    server.on("request", (request, response) => {
      const url = new URL(request.url ?? "", issuer);
      if (url.pathname === "/auth") attempts.push(url.searchParams);
      void answer(request, response);
    });
  };
  return {
    issuer,
    allow,
    /** What browsers came with. */
    attempts,
    close: () =>
      new Promise<void>((closed) => {
        server.closeAllConnections();
        server.close(() => closed());
      }),
  };
}
export type IdentityProvider = Awaited<ReturnType<typeof startIdentityProvider>>;

/** Follows redirects as a browser does, with its cookies; nothing is sent on that a browser would not send. */
export class Browser {
  readonly #cookies = new Map<string, Map<string, string>>();

  /** @returns the answer that is no redirect, or the redirect to what `until` says */
  async go(
    url: string,
    {
      body,
      headers = {},
      until = () => false,
    }: { body?: string; headers?: Record<string, string>; until?: (url: string) => boolean } = {},
  ): Promise<{ url: string; status: number; text: string; location?: string }> {
    const { origin } = new URL(url);
    const answer = await fetch(url, {
      redirect: "manual",
      headers: {
        cookie: this.cookiesFor(origin),
        ...(body === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }),
        ...headers,
      },
      ...(body === undefined ? {} : { method: "POST", body }),
    });
    const jar = this.#cookies.get(origin) ?? new Map<string, string>();
    this.#cookies.set(origin, jar);
    for (const cookie of answer.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(cookie) ?? [];
      if (/expires=Thu, 01 Jan 1970/i.test(cookie)) jar.delete(name);
      else jar.set(name, value);
    }
    const text = await answer.text();
    const location = answer.headers.get("location");
    if (location === null) return { url, status: answer.status, text };
    const next = new URL(location, url).href;
    if (until(next)) return { url, status: answer.status, text, location: next };
    return this.go(next, { until });
  }

  cookiesFor(origin: string): string {
    return [...(this.#cookies.get(origin) ?? [])].map(([name, value]) => `${name}=${value}`).join("; ");
  }

  /** Signs in at the provider's own pages. @returns where they lead, or what `until` stopped at */
  async signInAt(url: string, login: string, until?: (url: string) => boolean) {
    const options = until ? { until } : {};
    let page = await this.go(url, options);
    for (const body of [`prompt=login&login=${login}&password=any`, "prompt=consent"]) {
      const [, action] = /<form[^>]*action="([^"]+)"/.exec(page.text) ?? [];
      if (action === undefined) break;
      page = await this.go(new URL(action, page.url).href, { body, ...options });
    }
    return page;
  }
}
