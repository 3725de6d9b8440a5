import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { KubeConfig } from "@kubernetes/client-node";

/** A connection to the API server that can be cut. */
export class CuttableProxy {
  readonly config: KubeConfig;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;
  readonly #state: { cut: boolean };

  private constructor(config: KubeConfig, server: Server, sockets: Set<Socket>, state: { cut: boolean }) {
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
    const state = { cut: false };
    const server = createServer((socket) => {
      if (state.cut) return socket.destroy();
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

  mend(): void {
    this.#state.cut = false;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }
}
