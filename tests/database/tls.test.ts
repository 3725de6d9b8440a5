import { connect, createServer, type Server } from "node:net";
import { createSecureContext, getCACertificates, setDefaultCACertificates, TLSSocket } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { withConnection, type Login } from "../../src/database/connection.ts";
import { Authority } from "../support/authority.ts";
import { startTestServer, type TestServer } from "./postgres-server.ts";

let server: TestServer;
let front: Server;
let authority: string;
const trusted = getCACertificates("default");

/** PostgreSQL behind TLS, as a server that was built with it speaks; ours was not. */
async function startTlsFront(key: string, cert: string): Promise<Server> {
  const secureContext = createSecureContext({ key, cert });
  const front = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => {
      // What came is SSLRequest; the answer is yes.
      socket.write("S");
      const secure = new TLSSocket(socket, { isServer: true, secureContext });
      const upstream = connect(server.admin.port, server.admin.host);
      for (const end of [secure, upstream]) end.on("error", () => [secure, upstream].forEach((each) => each.destroy()));
      secure.pipe(upstream).pipe(secure);
    });
  });
  await new Promise<void>((resolve) => front.listen(0, "127.0.0.1", resolve));
  return front;
}

beforeAll(async () => {
  server = await startTestServer();
  const made = await Authority.make();
  authority = made.pem;
  const { key, certificate } = await made.issue(["localhost"]);
  front = await startTlsFront(key, certificate);
}, 120_000);
afterAll(async () => {
  setDefaultCACertificates(trusted);
  front?.close();
  await server?.stop();
});

async function connects(login: Partial<Login>): Promise<boolean> {
  const address = front.address();
  const port = typeof address === "object" && address ? address.port : 0;
  return withConnection({ ...server.admin, port, ...login }, "postgres", async (client) => {
    const { rows } = await client.query<{ one: number }>("SELECT 1 AS one");
    return rows[0]?.one === 1;
  });
}

test("says within seconds which certificate is refused, and by which sslmode, where its authority is not known", async () => {
  for (const sslMode of ["verify-ca", "verify-full"])
    await expect(connects({ host: "localhost", sslMode })).rejects.toMatchObject({
      name: "UserError",
      message: expect.stringMatching(
        new RegExp(`^PostgreSQL at localhost:\\d+ has a certificate that sslmode ${sslMode} refuses: `),
      ) as string,
    });
  expect(await connects({ sslMode: "require" })).toBe(true);
});

test("trusts a private authority that it was given; verify-full wants the name as well", async () => {
  setDefaultCACertificates([...trusted, authority]);
  try {
    expect(await connects({ host: "localhost", sslMode: "verify-full" })).toBe(true);
    expect(await connects({ host: "127.0.0.1", sslMode: "verify-ca" })).toBe(true);
    await expect(connects({ host: "127.0.0.1", sslMode: "verify-full" })).rejects.toThrow(
      /has a certificate that sslmode verify-full refuses/,
    );
  } finally {
    setDefaultCACertificates(trusted);
  }
});

test("trusts the authority that a configuration names, alone, by require as well", async () => {
  for (const sslMode of ["require", "verify-ca", "verify-full"]) {
    expect(await connects({ host: "localhost", sslMode, authorities: authority })).toBe(true);
    const { pem } = await Authority.make("CN=Somebody else");
    await expect(connects({ host: "localhost", sslMode, authorities: pem })).rejects.toThrow(/refuses: /);
  }
  await expect(connects({ host: "127.0.0.1", sslMode: "verify-full", authorities: authority })).rejects.toThrow(
    /refuses: /,
  );
});

test("says that a server has no TLS, and that a sslmode is not known, rather than do without", async () => {
  await expect(connects({ port: server.admin.port, sslMode: "require" })).rejects.toMatchObject({
    name: "UserError",
    message: expect.stringContaining("has no TLS, which sslmode require asks for") as string,
  });
  await expect(connects({ sslMode: "verify_full" })).rejects.toThrow(/sslmode verify_full is not known/);
});
