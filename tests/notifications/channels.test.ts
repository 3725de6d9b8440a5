import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SMTPServer } from "smtp-server";
import { Webhook } from "standardwebhooks";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MailSchema, WebhookSchema, type Notification } from "../../src/model/notification.ts";
import { mailChannel } from "../../src/notifications/mail.ts";
import { webhookChannel } from "../../src/notifications/webhook.ts";

const SECRET = "a-secret-of-more-than-24-characters";
const notice = {
  topic: "quota" as const,
  type: "Warning" as const,
  reason: "QuotaReached",
  object: "Tenant/clinic-a",
  message: "clinic-a may have 50 users",
  count: 3,
  first: "2026-01-01T00:00:00.000Z",
  last: "2026-01-01T00:05:00.000Z",
};
const notification: Notification = {
  id: "an-id",
  time: "2026-01-01T00:06:00.000Z",
  notices: [notice],
  more: 2,
  missed: 1,
};

let folder: string;
let secretFile: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "channels-"));
  secretFile = join(folder, "secret");
  writeFileSync(secretFile, `${SECRET}\n`);
});
afterEach(() => rmSync(folder, { recursive: true }));

describe("a webhook", () => {
  let server: Server;
  let answer: (body: string, headers: IncomingHttpHeaders) => { status: number; location?: string } | undefined;
  let got: { body: string; headers: IncomingHttpHeaders }[];
  let url: string;
  beforeEach(async () => {
    got = [];
    answer = () => ({ status: 204 });
    server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += chunk.toString()));
      request.on("end", () => {
        got.push({ body, headers: request.headers });
        const given = answer(body, request.headers);
        if (given) response.writeHead(given.status, given.location ? { location: given.location } : {}).end("no");
      });
    });
    await new Promise<void>((done) => void server.listen(0, "127.0.0.1", done));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
  });
  afterEach(async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  });

  const channel = (withinMs?: number) =>
    webhookChannel(WebhookSchema.parse({ name: "ops", url, secretFile }), withinMs);

  it("is signed, so that its receiver can tell who sent it and when", async () => {
    await channel().send(notification);
    const { body, headers } = got[0]!;
    const signed = headers as Record<string, string>;
    const receiver = new Webhook(SECRET, { format: "raw" });
    expect(receiver.verify(body, signed)).toEqual({
      type: "synapse-shards.notification",
      id: "an-id",
      timestamp: notification.time,
      data: { notices: [notice], more: 2, missed: 1 },
    });
    expect(headers["webhook-id"]).toBe("an-id");
    expect(() => receiver.verify(body.replace("50", "60"), signed)).toThrow("signature");
    expect(() => receiver.verify(body, { ...signed, "webhook-timestamp": "1700000000" })).toThrow("too old");
    expect(() => new Webhook(`${SECRET}!`, { format: "raw" }).verify(body, signed)).toThrow("signature");
  });

  it("takes a secret in the form whsec_…, and says what is wrong with one that is none", async () => {
    const key = Buffer.from(SECRET).toString("base64");
    writeFileSync(secretFile, `whsec_${key}`);
    await channel().send(notification);
    expect(new Webhook(key).verify(got[0]!.body, got[0]!.headers as Record<string, string>)).toBeDefined();
    writeFileSync(secretFile, "short");
    await expect(channel().send(notification)).rejects.toThrow("shorter than 24 characters");
    rmSync(secretFile);
    await expect(channel().send(notification)).rejects.toThrow("its secretFile cannot be read");
    expect(got).toHaveLength(1);
  });

  it("fails where it is not taken: refused, sent elsewhere, without an answer, or without anybody there", async () => {
    answer = () => ({ status: 500 });
    await expect(channel().send(notification)).rejects.toThrow("it answers with 500");
    answer = () => ({ status: 302, location: "http://elsewhere.example/" });
    await expect(channel().send(notification)).rejects.toThrow("it answers with 302");
    answer = () => undefined;
    await expect(channel(200).send(notification)).rejects.toThrow("it does not answer within 0.2 s");
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
    await expect(channel().send(notification)).rejects.toThrow("it cannot be reached");
  });
});

describe("mail", () => {
  let server: SMTPServer;
  let letters: { from: string; to: string[]; text: string; user?: string }[];
  let port: number;
  const begin = async (options: ConstructorParameters<typeof SMTPServer>[0]) => {
    letters = [];
    server = new SMTPServer({
      logger: false,
      onAuth: ({ username, password }, _session, callback) =>
        callback(password === SECRET ? null : new Error("wrong password"), { user: username }),
      onData: (stream, { envelope, user }, callback) => {
        let text = "";
        stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
        stream.on("end", () => {
          const from = envelope.mailFrom === false ? "" : envelope.mailFrom.address;
          letters.push({ from, to: envelope.rcptTo.map(({ address }) => address), text, user });
          callback();
        });
      },
      ...options,
    });
    server.on("error", () => {});
    await new Promise<void>((done) => void server.listen(0, "127.0.0.1", done));
    ({ port } = server.server.address() as AddressInfo);
  };
  afterEach(() => new Promise<void>((done) => server.close(() => done())));

  const channel = (more: object) =>
    mailChannel(
      MailSchema.parse({
        name: "mail",
        server: { host: "127.0.0.1", port, ...more },
        from: "shards@hosting.example",
        to: ["ops@hosting.example", "night@hosting.example"],
      }),
    );

  it("reaches all who are to get it, with what happened in words", async () => {
    await begin({ authOptional: true, disabledCommands: ["STARTTLS"], allowInsecureAuth: true });
    await channel({ security: "none", username: "shards", passwordFile: secretFile }).send(notification);
    expect(letters).toMatchObject([
      { from: "shards@hosting.example", to: ["ops@hosting.example", "night@hosting.example"], user: "shards" },
    ]);
    const { text } = letters[0]!;
    expect(text).toContain("Subject: [synapse-shards] QuotaReached Tenant/clinic-a and 2 more");
    expect(text).toContain("Message-ID: <an-id@synapse-shards.invalid>");
    expect(text).toContain("clinic-a may have 50 users");
    expect(text).toContain("3 times from 2026-01-01T00:00:00.000Z");
    expect(text).toContain("1 events were forgotten");
  });

  it("is sent in no other way than was asked for", async () => {
    await begin({ authOptional: true, disabledCommands: ["STARTTLS"] });
    await expect(channel({ security: "starttls" }).send(notification)).rejects.toThrow(/does not take it: .*STARTTLS/);
    await expect(channel({ security: "tls" }).send(notification)).rejects.toThrow("does not take it");
    expect(letters).toEqual([]);
  });

  it("fails where the server refuses it, and does not tell the password", async () => {
    await begin({ disabledCommands: ["STARTTLS"], allowInsecureAuth: true });
    writeFileSync(secretFile, "not-the-right-password-at-all");
    const sending = channel({ security: "none", username: "shards", passwordFile: secretFile }).send(notification);
    await expect(sending).rejects.toThrow(/does not take it: .*wrong password/);
    await expect(sending).rejects.not.toThrow(/not-the-right/);
  });
});
