/** Answers every request with the same kilobyte, as fast as Node can, so that the proxy in front is what is measured. Prints its port. */
import { createServer, type AddressInfo, type Socket } from "node:net";

const BODY = JSON.stringify({ next_batch: "s72594_4483_1934", filler: "x".repeat(970) });
const ANSWER = Buffer.from(
  `HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: application/json\r\nCache-Control: no-cache\r\n` +
    `Access-Control-Allow-Origin: *\r\nContent-Length: ${Buffer.byteLength(BODY)}\r\n\r\n${BODY}`,
  "latin1",
);
const LENGTH = /\r\ncontent-length: *(\d+)/i;

/** Answers each complete request of a connection. It knows no chunked bodies, because no proxy here sends any. */
function serve(socket: Socket): void {
  let pending = "";
  socket.setNoDelay(true);
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk) => {
    pending += chunk.toString("latin1");
    for (let end = pending.indexOf("\r\n\r\n"); end !== -1; end = pending.indexOf("\r\n\r\n")) {
      const whole = end + 4 + Number(LENGTH.exec(pending.slice(0, end))?.[1] ?? 0);
      if (pending.length < whole) return;
      pending = pending.slice(whole);
      socket.write(ANSWER);
    }
  });
}

const server = createServer(serve);
server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port));
