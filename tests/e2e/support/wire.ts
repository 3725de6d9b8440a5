import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { request } from "undici";

/** What went over a wire: a request with its answer, as JSON or text. */
export interface Exchanged {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  asked: string;
  status: number;
  answered: string;
}

/** Between two programs that talk HTTP: passes everything on, keeps it, and can be cut. */
export class HttpWire {
  readonly exchanged: Exchanged[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #port: number;
  #to = "";

  constructor(port: number) {
    this.#port = port;
    this.#server = createServer((incoming, outgoing) => {
      const { method = "GET", url = "/", headers } = incoming;
      void (async () => {
        const asked = await buffer(incoming);
        const { "transfer-encoding": _, connection: __, ...sent } = headers;
        const answer = await request(this.#to + url, {
          method: method as "GET" | "POST",
          headers: sent,
          body: asked.length === 0 ? null : asked,
        });
        const answered = Buffer.from(await answer.body.arrayBuffer());
        this.exchanged.push({
          method,
          path: url,
          headers,
          asked: asked.toString(),
          status: answer.statusCode,
          answered: answered.toString(),
        });
        const { "transfer-encoding": ___, connection: ____, ...received } = answer.headers;
        outgoing.writeHead(answer.statusCode, received as Record<string, string>).end(answered);
      })().catch(() => outgoing.destroy());
    });
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** @param to where everything goes from now on */
  async open(to = this.#to): Promise<void> {
    this.#to = to;
    await new Promise<void>((done) => this.#server.listen(this.#port, "127.0.0.1", done));
  }

  /** Nobody listens there any more. */
  async cut(): Promise<void> {
    const closed = new Promise((done) => this.#server.close(done));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
