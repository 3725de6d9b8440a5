import { createServer } from "node:net";

/** Whether something could listen there now. */
export async function isFree(host: string, port: number): Promise<boolean> {
  return (await tryListen(host, port)).port !== undefined;
}

/** Why nothing can listen there, in the system's word (EADDRINUSE, EACCES, …); undefined if something can. */
export async function whyTaken(host: string, port: number): Promise<string | undefined> {
  return (await tryListen(host, port)).code;
}

export async function freePort(host: string): Promise<number> {
  const { port, code } = await tryListen(host, 0);
  if (port === undefined) throw new Error(`no port of ${host} can be listened on: ${code}`);
  return port;
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
