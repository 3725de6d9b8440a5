import type { Server } from "node:http";

/** How long after a close requests are cut off; streams of ours have ended by then. */
const CLOSE_TIMEOUT_MS = 3_000;

/** To be called before it listens. @returns what closes it, and lets what is under way end, within reason */
export function gentleClose(app: { server: Server; close(): PromiseLike<void> }): () => Promise<void> {
  const inFlight = countRequests(app.server);
  const closeConnections = () => app.server.closeAllConnections();
  return async () => {
    const cutOff = setTimeout(closeConnections, CLOSE_TIMEOUT_MS);
    const closed = app.close();
    // A connection on which nothing was ever asked is not idle to Node, and would be waited for.
    inFlight.onIdle = () => setImmediate(closeConnections);
    if (inFlight.now === 0) inFlight.onIdle();
    await closed;
    clearTimeout(cutOff);
  };
}

/** Calls `onIdle` whenever the last request under way has been answered. */
function countRequests(server: Server) {
  const counter = { now: 0, onIdle: () => {} };
  server.on("request", (_request, response) => {
    counter.now += 1;
    response.once("close", () => {
      counter.now -= 1;
      if (counter.now === 0) counter.onIdle();
    });
  });
  return counter;
}
