import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/** Below the ports that systems take for connections of their own: nobody takes it before it is listened on, long after this. */
const RANGE = { from: 20_000, to: 32_000 };

/** For programs that have to be told their port. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(RANGE.from, RANGE.to);
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!isFree) continue;
    await new Promise((done) => server.close(done));
    return port;
  }
}
