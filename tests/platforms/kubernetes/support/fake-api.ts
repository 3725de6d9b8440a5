import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { KubeConfig, type KubernetesObject } from "@kubernetes/client-node";

const COLLECTION = /\/(secrets|pods|statefulsets)$/;

/** Lists and watches as an API server answers them, for tests that need no cluster. */
export class FakeApi {
  readonly config = new KubeConfig();
  /** Answers to requests that fail; decides by path and whether it is a watch. */
  fault: (request: { path: string; isWatch: boolean }) => number | undefined = () => undefined;
  readonly #objects = new Map<string, Map<string, KubernetesObject>>();
  readonly #watches = new Set<{ path: string; answer: ServerResponse }>();
  readonly #server: Server;
  #version = 1;
  /** Of each collection's last change. */
  readonly #versions = new Map<string, number>();

  private constructor() {
    this.#server = createServer((request, answer) => {
      const url = new URL(request.url ?? "/", "http://fake");
      this.#handle(url, answer);
    });
  }

  static async open(): Promise<FakeApi> {
    const api = new FakeApi();
    await new Promise<void>((done) => api.#server.listen(0, "127.0.0.1", done));
    const { port } = api.#server.address() as AddressInfo;
    api.config.loadFromOptions({
      clusters: [{ name: "fake", server: `http://127.0.0.1:${port}`, skipTLSVerify: true }],
      users: [{ name: "fake" }],
      contexts: [{ name: "fake", cluster: "fake", user: "fake" }],
      currentContext: "fake",
    });
    return api;
  }

  /** Writes an object of a collection, and tells those who watch it. */
  put(path: string, name: string, more: object = {}): void {
    const of = this.#collection(path);
    const present = of.get(name);
    const namespace = /\/namespaces\/([^/]+)/.exec(path)?.[1] ?? "";
    const metadata = {
      name,
      namespace,
      uid: present?.metadata?.uid ?? `${name}-${this.#version}`,
      resourceVersion: String(++this.#version),
    };
    const object = { ...more, metadata: { ...("metadata" in more ? (more.metadata as object) : {}), ...metadata } };
    of.set(name, object);
    this.#tell(path, present ? "MODIFIED" : "ADDED", object);
  }

  remove(path: string, name: string): void {
    const object = this.#collection(path).get(name);
    if (!object) return;
    this.#collection(path).delete(name);
    const metadata = { ...object.metadata, resourceVersion: String(++this.#version) };
    this.#tell(path, "DELETED", { ...object, metadata });
  }

  breakWatches(): void {
    for (const { answer } of this.#watches) answer.destroy();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }

  #collection(path: string): Map<string, KubernetesObject> {
    const found = this.#objects.get(path) ?? new Map<string, KubernetesObject>();
    this.#objects.set(path, found);
    return found;
  }

  #tell(path: string, type: string, object: object): void {
    this.#versions.set(path, this.#version);
    for (const watch of this.#watches)
      if (watch.path === path) watch.answer.write(`${JSON.stringify({ type, object })}\n`);
  }

  #handle(url: URL, answer: ServerResponse): void {
    const path = url.pathname;
    const isWatch = url.searchParams.get("watch") === "true";
    // As an API server that has forgotten what happened since that version.
    const isStale = isWatch && Number(url.searchParams.get("resourceVersion")) < (this.#versions.get(path) ?? 0);
    const [, parent = "", name = ""] = /^(.*)\/([^/]+)$/.exec(path) ?? [];
    const named = this.#objects.get(parent)?.get(name);
    const isMissing = !named && !isWatch && !COLLECTION.test(path);
    // As an API server that does not list by watches.
    const isUnknown = url.searchParams.has("sendInitialEvents");
    const fault = isUnknown ? 422 : (this.fault({ path, isWatch }) ?? (isStale ? 410 : isMissing ? 404 : undefined));
    answer.writeHead(fault ?? 200, { "content-type": "application/json" });
    if (fault !== undefined) {
      answer.end(JSON.stringify({ kind: "Status", code: fault, message: `made up: ${fault}` }));
    } else if (isWatch) {
      answer.flushHeaders();
      const watch = { path, answer };
      this.#watches.add(watch);
      answer.on("close", () => this.#watches.delete(watch));
    } else if (named) {
      answer.end(JSON.stringify(named));
    } else {
      const items = [...this.#collection(path).values()];
      answer.end(JSON.stringify({ kind: "List", metadata: { resourceVersion: String(this.#version) }, items }));
    }
  }
}
