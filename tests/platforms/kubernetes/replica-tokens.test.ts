import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { KubeConfig } from "@kubernetes/client-node";
import { expect, it } from "vitest";
import { ClusterTokens } from "../../../src/platforms/kubernetes/cluster-tokens.ts";
import { ReplicaProof } from "../../../src/platforms/kubernetes/replica-proof.ts";
import { until } from "../../support/patience.ts";

it("a replica follows the Secret of the tokens without making it, and proves itself once it is there", async () => {
  const methods = new Set<string | undefined>();
  const watches: ServerResponse[] = [];
  const server = createServer((request, answer) => {
    methods.add(request.method);
    answer.setHeader("content-type", "application/json");
    if (!request.url?.includes("watch=true")) {
      answer.end(
        JSON.stringify({ kind: "SecretList", apiVersion: "v1", metadata: { resourceVersion: "1" }, items: [] }),
      );
      return;
    }
    // As an API server that does not list by watches.
    if (request.url.includes("sendInitialEvents")) {
      answer.writeHead(422).end();
      return;
    }
    answer.flushHeaders();
    watches.push(answer);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const config = new KubeConfig();
  config.loadFromOptions({
    clusters: [
      { name: "fake", server: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, skipTLSVerify: true },
    ],
    users: [{ name: "fake" }],
    contexts: [{ name: "fake", cluster: "fake", user: "fake" }],
    currentContext: "fake",
  });
  const problems: string[] = [];
  const onError = (problem: string) => void problems.push(problem);
  const tokens = await ClusterTokens.follow({ config, namespace: "shards", secret: "tokens", onError });
  try {
    const proof = new ReplicaProof(() => tokens.api());
    expect(proof.make()).toBeUndefined();
    expect(proof.isGood(undefined)).toBe(false);
    await until("the Secret is watched", () => watches.length > 0);
    const data = { "api-token": btoa("api"), "gateway-token": btoa("gateway") };
    const metadata = { name: "tokens", namespace: "shards", uid: "u", resourceVersion: "2" };
    const object = { kind: "Secret", apiVersion: "v1", metadata, data };
    watches[0]!.write(`${JSON.stringify({ type: "ADDED", object })}\n`);
    await until("the tokens are known", () => proof.make() !== undefined);
    expect(new ReplicaProof(() => ["other", "api"]).isGood(proof.make())).toBe(true);
    expect(new ReplicaProof(() => ["other", "gateway"]).isGood(proof.make())).toBe(false);
    expect([...methods]).toEqual(["GET"]);
    expect(problems).toEqual([]);
  } finally {
    await tokens.close();
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  }
});
