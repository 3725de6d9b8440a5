import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** How long the rest of an unread body may take after the answer, before the connection is closed. */
const DISCARD_MS = 30_000;

/**
 * To be called before an answer that may come before the body's end. What the client still sends is read for a while and dropped: were the connection
 * closed with something unread, it would be reset, and the client would lose the answer. That holds as well where the answer ends the connection, as
 * with HTTP/1.0: then our half is closed at once, and the client's when it has sent everything.
 */
export function answerBeforeBody(request: IncomingMessage, response: ServerResponse, maxBytes: number): void {
  if (request.complete || request.socket.destroyed) return;
  const { socket } = request;
  const closes = keepReading(socket);
  response.once("finish", () => {
    let bytes = 0;
    const timer = setTimeout(() => socket.destroy(), DISCARD_MS);
    request.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > maxBytes) socket.destroy();
    });
    const done = (): void => {
      clearTimeout(timer);
      closes();
    };
    request.once("close", done).once("end", done);
    request.resume();
  });
}

const ended = new WeakSet<Socket>();

/** The same for a connection on which no request could be made out. Node's parser calls it an error again whatever comes there; the answer is sent once. */
export function endAndDiscard(socket: Socket, text: string, maxBytes: number): void {
  if (socket.bytesRead > maxBytes) return void socket.destroy();
  if (ended.has(socket)) return;
  if (!socket.writable) return void socket.destroy();
  ended.add(socket);
  const timer = setTimeout(() => socket.destroy(), DISCARD_MS);
  socket.once("end", () => socket.destroy()).once("close", () => clearTimeout(timer));
  socket.end(text);
  socket.resume();
}

/** Lets Node's "the connection ends with this answer" close our half only. @returns what closes the rest, and undoes this */
function keepReading(socket: Socket): () => void {
  let ended = false;
  socket.destroySoon = () => {
    ended = true;
    socket.end();
  };
  return () => {
    // The prototype's own again.
    delete (socket as Partial<Pick<Socket, "destroySoon">>).destroySoon;
    if (ended) socket.destroySoon();
  };
}
