import { randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";

/** Below it are ports of well-known services. */
const LOWEST = 10_000;
/** Where the system begins to take ports for connections that go out, and for listeners without a port of their own. */
const USUAL_FIRST_OF_SYSTEM = 32_768;
/** Ports that a Kubernetes of the same machine redirects, which nothing listens on. */
const FIRST_NODE_PORT = 30_000;
const ATTEMPTS = 100;

/** Whether something could listen there now. */
export async function isFree(host: string, port: number): Promise<boolean> {
  return (await tryListen(host, port)).port !== undefined;
}

/** Why nothing can listen there, in the system's word (EADDRINUSE, EACCES, …); undefined if something can. */
export async function whyTaken(host: string, port: number): Promise<string | undefined> {
  return (await tryListen(host, port)).code;
}

/**
 * A port that nothing listens on, and that the system gives to nobody of its own accord: between the choice and its use, or while the cluster
 * is stopped, no connection takes it.
 */
export async function freePort(host: string): Promise<number> {
  const above = Math.min(firstOfSystem(), FIRST_NODE_PORT);
  for (let attempt = 0; attempt < ATTEMPTS && above > LOWEST; attempt += 1) {
    const candidate = randomInt(LOWEST, above);
    if (await isFree(host, candidate)) return candidate;
  }
  const { port, code } = await tryListen(host, 0);
  if (port === undefined) throw new Error(`no port of ${host} can be listened on: ${code}`);
  return port;
}

function firstOfSystem(): number {
  try {
    const first = Number(readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").split(/\s+/)[0]);
    return first > 0 ? first : USUAL_FIRST_OF_SYSTEM;
  } catch {
    return USUAL_FIRST_OF_SYSTEM;
  }
}

function tryListen(host: string, port: number): Promise<{ port?: number; code?: string }> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => resolve({ code: error.code ?? error.message }));
    server.listen({ host, port, exclusive: true }, () => {
      const address = server.address();
      server.close(() => resolve({ port: typeof address === "object" && address ? address.port : port }));
    });
  });
}
