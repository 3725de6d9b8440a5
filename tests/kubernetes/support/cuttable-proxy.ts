import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { KubeConfig } from "@kubernetes/client-node";

type State = { cut: boolean; stalled: boolean };

/** A connection to the API server that can be cut, so that both ends notice, or stalled, so that none does. */
export class CuttableProxy {
  readonly config: KubeConfig;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;
  readonly #state: State;

  private constructor(config: KubeConfig, server: Server, sockets: Set<Socket>, state: State) {
    this.config = config;
    this.#server = server;
    this.#sockets = sockets;
    this.#state = state;
  }

  static async open(config: KubeConfig): Promise<CuttableProxy> {
    const cluster = config.getCurrentCluster();
    if (!cluster) throw new Error("KUBECONFIG has no current cluster");
    const upstream = new URL(cluster.server);
    const sockets = new Set<Socket>();
    const state: State = { cut: false, stalled: false };
    const server = createServer((socket) => {
      if (state.cut) return socket.destroy();
      if (state.stalled) {
        sockets.add(socket);
        return socket.on("error", () => {}).on("close", () => sockets.delete(socket));
      }
      const other = connect(Number(upstream.port || 443), upstream.hostname);
      for (const [a, b] of [
        [socket, other],
        [other, socket],
      ] as const) {
        sockets.add(a);
        a.on("error", () => b.destroy());
        a.on("close", () => {
          sockets.delete(a);
          b.destroy();
        });
        a.pipe(b);
      }
      return undefined;
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address() as AddressInfo;
    const own = new KubeConfig();
    own.loadFromOptions({
      clusters: [{ ...cluster, server: `https://127.0.0.1:${port}` }],
      users: config.getUsers(),
      contexts: config.getContexts(),
      currentContext: config.getCurrentContext(),
    });
    return new CuttableProxy(own, server, sockets, state);
  }

  cut(): void {
    this.#state.cut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** What is sent is not delivered any more, and nobody is told, as behind a firewall that lost its memory. */
  stall(): void {
    this.#state.stalled = true;
    for (const socket of this.#sockets) socket.unpipe().pause();
  }

  /** For new connections; those that were stalled stay so, as they do. */
  heal(): void {
    this.#state.cut = false;
    this.#state.stalled = false;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }
}
