import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CHART } from "./support/matrix-stack.ts";

const run = promisify(execFile);
const KEYS = ["SYNAPSE_MACAROON", "SYNAPSE_SIGNING_KEY"];
interface Secret {
  metadata: { labels?: Record<string, string>; annotations?: Record<string, string>; resourceVersion?: string };
  data: Record<string, string>;
}

describe("the Job that makes a homeserver's keys", () => {
  let secret: Secret | undefined;
  let refusal: { status: number; message: string } | undefined;
  const seen: string[] = [];
  let account = "";
  const server = createServer((request, answer) => {
    void respond(request).then(({ status, body }) => answer.writeHead(status).end(JSON.stringify(body)));
  });

  async function respond(request: IncomingMessage): Promise<{ status: number; body: object }> {
    seen.push(`${request.method} ${request.url} ${request.headers.authorization}`);
    let text = "";
    for await (const chunk of request) text += String(chunk);
    if (refusal) return { status: refusal.status, body: { message: refusal.message } };
    if (request.method === "GET") return secret ? { status: 200, body: secret } : { status: 404, body: {} };
    const { metadata, stringData } = JSON.parse(text) as Secret & { stringData: Record<string, string> };
    if (request.method === "PATCH" && metadata.resourceVersion !== secret?.metadata.resourceVersion)
      return { status: 409, body: { message: "changed meanwhile" } };
    const given = Object.entries(stringData).map(([key, value]) => [key, Buffer.from(value).toString("base64")]);
    secret = {
      metadata: { ...secret?.metadata, ...metadata, resourceVersion: "2" },
      data: { ...secret?.data, ...Object.fromEntries(given) },
    };
    return { status: request.method === "POST" ? 201 : 200, body: secret };
  }

  const make = () =>
    run("python3", [join(CHART, "files/init-secrets.py"), "clinic", "a-generated", "clinic-a", ...KEYS], {
      env: {
        PATH: process.env["PATH"],
        SERVICE_ACCOUNT: account,
        API_SERVER: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      },
    });

  beforeAll(async () => {
    account = await mkdtemp(join(tmpdir(), "account-"));
    await writeFile(join(account, "token"), "let-me-in\n");
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  });
  afterAll(async () => {
    server.close();
    await rm(account, { recursive: true });
  });
  beforeEach(() => {
    secret = undefined;
    refusal = undefined;
    seen.length = 0;
  });

  it("makes all of them in a Secret that names the tenant and outlives the release, and none of them again", async () => {
    await make();
    expect(secret?.metadata).toMatchObject({
      labels: { "synapse-shards.io/tenant": "clinic-a" },
      annotations: { "helm.sh/resource-policy": "keep" },
    });
    const signingKey = Buffer.from(secret?.data["SYNAPSE_SIGNING_KEY"] ?? "", "base64").toString();
    expect(signingKey).toMatch(/^ed25519 a_[a-z0-9]{6} [A-Za-z0-9+/]{43}$/);
    expect(seen.every((call) => call.endsWith("Bearer let-me-in"))).toBe(true);
    const made = secret?.data;
    expect((await make()).stdout).toContain("made nothing");
    expect(secret?.data).toEqual(made);
  });

  it("adds what an earlier version's Secret lacks, and keeps that from being taken away with the release", async () => {
    secret = { metadata: { resourceVersion: "1" }, data: { SYNAPSE_SIGNING_KEY: "a2VwdA==" } };
    await make();
    expect(secret.data["SYNAPSE_SIGNING_KEY"]).toBe("a2VwdA==");
    expect(secret.data["SYNAPSE_MACAROON"]).toBeDefined();
    expect(secret.metadata.annotations).toEqual({ "helm.sh/resource-policy": "keep" });
  });

  it("fails with the API server's words, and makes nothing, where it cannot see whether there are keys", async () => {
    refusal = { status: 403, message: "secrets is forbidden" };
    await expect(make()).rejects.toThrow("cannot read the Secret clinic/a-generated: secrets is forbidden");
    expect(seen).toHaveLength(1);
  });
});
