import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { Bench, eventually, serving, type Origin } from "./harness.ts";

const PAGE = readFileSync(new URL("../../docs/reverse-proxy.md", import.meta.url), "utf8");
const PUBLIC_PORT = 443;
const CLIENT = "127.0.0.9";

/** How each runs the page's own example, with ports and files of the test in place of those of the page. */
const PROXIES = {
  nginx: {
    block: /```nginx\n([\s\S]*?)```/,
    config: (block: string, directory: string) =>
      `daemon off; pid ${directory}/nginx.pid; error_log stderr; events {}\nhttp { access_log off; client_body_temp_path ${directory}/body; proxy_temp_path ${directory}/proxy; fastcgi_temp_path ${directory}/f; uwsgi_temp_path ${directory}/u; scgi_temp_path ${directory}/s;\n${block}\n}\n`,
    args: (file: string, directory: string) => ["-p", directory, "-c", file],
  },
  caddy: {
    block: /```caddyfile\n([\s\S]*?)```/,
    config: (block: string) => `{\n  admin off\n  auto_https off\n}\n${block}`,
    args: (file: string) => ["run", "--adapter", "caddyfile", "--config", file],
  },
};

let bench: Bench | undefined;
let proxy: ChildProcess | undefined;
let directory: string | undefined;
afterEach(async () => {
  if (proxy && proxy.exitCode === null) {
    proxy.kill("SIGTERM");
    await once(proxy, "exit");
  }
  await bench?.stop();
  if (directory !== undefined) rmSync(directory, { recursive: true });
  proxy = bench = directory = undefined;
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

async function startProxy(name: keyof typeof PROXIES, gateway: number): Promise<number> {
  const { block, config, args } = PROXIES[name];
  directory = mkdtempSync(join(tmpdir(), "reverse-proxy-"));
  const [https, federation] = [await freePort(), await freePort()];
  const subject = ["-subj", "/CN=*.example.org", "-addext", "subjectAltName=DNS:*.example.org"];
  const files = ["-keyout", join(directory, "example.org.key"), "-out", join(directory, "example.org.crt")];
  execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", ...subject, ...files], {
    stdio: "ignore",
  });
  const example = block
    .exec(PAGE)![1]!
    .replaceAll("/etc/ssl/", `${directory}/`)
    .replaceAll("127.0.0.1:8008", `127.0.0.1:${gateway}`)
    .replaceAll("8448", String(federation))
    .replace("listen 443", `listen ${https}`)
    .replace("https://*.example.org,", `https://*.example.org:${https},`);
  const file = join(directory, "config");
  writeFileSync(file, config(example, directory));
  proxy = spawn(name, args(file, directory), {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, HOME: directory },
  });
  let said = "";
  proxy.stderr!.on("data", (chunk) => (said += String(chunk)));
  await eventually(`${name} answers`, async () => {
    if (proxy!.exitCode !== null) throw new Error(`${name} ended: ${said}`);
    return ask(https, "/up").then(
      () => true,
      () => false,
    );
  });
  return https;
}

interface Reply {
  status: number;
  location: string | undefined;
}

function ask(port: number, path: string, headers: Record<string, string> = {}, body?: Buffer): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest({
      host: "127.0.0.1",
      port,
      localAddress: CLIENT,
      servername: "a.example.org",
      rejectUnauthorized: false,
      agent: false,
      method: body ? "POST" : "GET",
      path,
      headers: { host: `a.example.org:${PUBLIC_PORT}`, ...headers },
    });
    request.on("error", reject);
    request.on("response", (response: IncomingMessage) => {
      response.resume().on("end", () => resolve({ status: response.statusCode!, location: response.headers.location }));
    });
    request.end(body);
  });
}

/** As Synapse before single sign-on: to its own address first, then to the identity provider. */
function signOn(bench: Bench, seen: IncomingMessage["headers"][]): Promise<Origin> {
  return bench.origin((request, response) => {
    seen.push(request.headers);
    const at = `${String(request.headers["x-forwarded-proto"])}://${request.headers.host}`;
    const location = at === `https://a.example.org:${PUBLIC_PORT}` ? "https://idp.example.com/" : `${at}${request.url}`;
    request.resume().on("end", () => response.writeHead(302, { location }).end());
  });
}

describe.each(Object.keys(PROXIES) as (keyof typeof PROXIES)[])("the gateway behind %s, as its page has it", (name) => {
  const isThere = spawnSync(name, [name === "nginx" ? "-v" : "version"]).status === 0;

  it.skipIf(!isThere)(
    `knows clients by their addresses, and single sign-on arrives (needs ${name})`,
    async () => {
      bench = await Bench.start([], { trustedProxies: ["127.0.0.1"] });
      const seen: IncomingMessage["headers"][] = [];
      const origin = await signOn(bench, seen);
      await bench.controller.update([{ ...serving("a", origin), hosts: ["a.example.org"] }]);
      const port = await startProxy(name, bench.port);
      const reply = await ask(port, "/_matrix/client/v3/login/sso/redirect?x=%2F", { "X-Forwarded-For": "10.1.2.3" });
      expect(reply).toEqual({ status: 302, location: "https://idp.example.com/" });
      expect(seen.at(-1)).toMatchObject({
        host: `a.example.org:${PUBLIC_PORT}`,
        "x-forwarded-for": CLIENT,
        "x-forwarded-proto": "https",
      });
      expect((await ask(port, "/upload", {}, Buffer.alloc(5_000_000))).status).toBe(302);
    },
    60_000,
  );
});
