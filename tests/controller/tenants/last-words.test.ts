import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, it } from "vitest";
import { askPublicly } from "../../../src/controller/tenants/last-words.ts";
import { answersIn, MOST_ANSWER_BYTES } from "../../../src/model/public-answers.ts";

let close = () => {};
afterEach(() => close());

async function asked(listener: RequestListener): Promise<Record<string, string>> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  close = () => {
    server.closeAllConnections();
    server.close();
  };
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return askPublicly({ address, serverName: "a.example", secret: "s" });
}

const KEYS = JSON.stringify({ server_name: "a.example", verify_keys: {}, valid_until_ts: 1 });

it("keeps what a homeserver says of itself, as it says it to whom it lets in", async () => {
  const said = await asked(({ url, headers }, response) => {
    if (headers["x-synapse-shards-secret"] !== "s" || headers.host !== "a.example") response.statusCode = 403;
    else if (url === "/_matrix/key/v2/server") return void response.end(KEYS);
    else if (url === "/.well-known/matrix/client") return void response.end("{}");
    else response.statusCode = 404;
    response.end('{"errcode":"M_NOT_FOUND"}');
  });
  expect(said).toEqual({ "/_matrix/key/v2/server": KEYS, "/.well-known/matrix/client": "{}" });
});

it("keeps nothing that is not the tenant's, no JSON, too long, or late", async () => {
  const said = await asked(({ url }, response) => {
    if (url === "/_matrix/key/v2/server") response.end(KEYS.replace("a.example", "b.example"));
    else if (url === "/.well-known/matrix/client") response.end("<html>");
    else if (url === "/.well-known/matrix/server") response.end(JSON.stringify({ x: "y".repeat(MOST_ANSWER_BYTES) }));
    else response.write("{");
  });
  expect(said).toEqual({});
});

it("says nothing for a homeserver that does not answer", async () => {
  expect(await askPublicly({ address: "127.0.0.1:1", serverName: "a.example", secret: undefined })).toEqual({});
});

it("tells of another configuration nothing but the keys", () => {
  const answers = { "/_matrix/key/v2/server": KEYS, "/.well-known/matrix/client": "{}" };
  const words = { at: "2026-01-01T00:00:00.000Z", hash: "h", answers };
  expect(answersIn(words, "h")).toEqual(answers);
  expect(answersIn(words, "i")).toEqual({ "/_matrix/key/v2/server": KEYS });
  expect(answersIn({ ...words, answers: {} }, "i")).toEqual({});
});
