import fastify from "fastify";
import { consoleFiles } from "../../../api/console/console-files.ts";
import { registerErrorHandling } from "../../../api/errors.ts";
import { gentleClose } from "../../../api/gentle-close.ts";
import { forwardToLeader, type LeaderProxyOptions } from "../leader-proxy.ts";

export interface ConsoleListenerOptions extends Pick<
  LeaderProxyOptions,
  "host" | "port" | "logger" | "upstream" | "proof"
> {
  /** Names under which browsers reach it. */
  hosts: readonly string[];
  /** Networks of proxies before it, whose `X-Forwarded-For` counts. */
  trustedProxies: readonly string[];
}

/** For gateways and for Prometheus, which come by another port. */
const NOT_HERE = /^\/v1\/(routes|gateway)(\/|\?|$)/;

/**
 * The console and the API as browsers reach them from outside the cluster: a port of its own, at which there are neither metrics nor routes. Every
 * replica has the pages; what they ask goes on to the one that leads.
 */
export async function startConsoleListener(
  options: ConsoleListenerOptions,
): Promise<{ port: number; close(): Promise<void> }> {
  const { host, port, hosts, trustedProxies, logger } = options;
  const app = fastify({ logger: false, trustProxy: trustedProxies.length > 0 ? [...trustedProxies] : false });
  const close = gentleClose(app);
  registerErrorHandling(app, logger);
  app.addHook("onRequest", async (request, reply) => {
    if (NOT_HERE.test(decoded(request.url))) reply.callNotFound();
  });
  await consoleFiles(app, hosts);
  await forwardToLeader(app, { ...options, keepsHost: true, clientOf: ({ ip }) => ip });
  await app.listen({ host, port });
  const address = app.server.address();
  return { port: typeof address === "object" && address ? address.port : port, close };
}

/** As the leader's router reads it. */
function decoded(url: string): string {
  try {
    return decodeURIComponent(url.split("?", 1)[0] ?? "");
  } catch {
    return url;
  }
}
