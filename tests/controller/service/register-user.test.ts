import { createHmac } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import { expect, onTestFinished, test } from "vitest";
import { registerUser } from "../../../src/controller/service/register-user.ts";

const USER = { username: "ada", password: "correct horse", admin: false };

/** A homeserver's listener. @returns its address */
async function listener(answer: (request: IncomingMessage) => Promise<[number, object]>): Promise<string> {
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const [status, body] = await answer(request);
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  };
  const server = createServer((request, response) => void handle(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const address = server.address();
  return `127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
}

const register = (address: string) =>
  registerUser({ address, serverName: "a.example", secret: "gateway" }, "shared", USER);

test("registers a user with the shared secret, as the tenant's server name", async () => {
  const seen: unknown[] = [];
  const address = await listener(async (request) => {
    const { host, "x-synapse-shards-secret": secret } = request.headers;
    seen.push({ host, secret });
    if (request.method === "GET") return [200, { nonce: "n" }];
    const { mac } = JSON.parse(await text(request)) as { mac: string };
    seen.push(mac);
    return [200, { user_id: "@ada:a.example" }];
  });
  expect(await register(address)).toEqual({ userId: "@ada:a.example" });
  const mac = createHmac("sha1", "shared").update("n\0ada\0correct horse\0notadmin").digest("hex");
  const headers = { host: "a.example", secret: "gateway" };
  expect(seen).toEqual([headers, headers, mac]);
});

test.each([
  [
    404,
    "M_UNRECOGNIZED",
    "Unrecognized request",
    "InvalidInput",
    /accounts are kept by its authentication service.*make the user there/,
  ],
  [
    400,
    "M_USER_IN_USE",
    "User ID already taken.",
    "AlreadyExists",
    /a\.example refuses the user: User ID already taken/,
  ],
  [
    400,
    "M_INVALID_USERNAME",
    "Bad name",
    "InvalidInput",
    /a\.example refuses the user: Bad name \(M_INVALID_USERNAME\)/,
  ],
])("says why a homeserver refuses a user with %d %s", async (status, errcode, error, code, message) => {
  const address = await listener(async () => [status, { errcode, error }]);
  await expect(register(address)).rejects.toMatchObject({ code, message: expect.stringMatching(message) as string });
});
