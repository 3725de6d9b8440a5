import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, isIP, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { UserError } from "../model/errors.ts";
import { connectProblem, type Login } from "./connection.ts";
import { encryptionOf, withoutTls, type Encryption } from "./encryption.ts";

/** To connect, to agree on TLS, and until the server says how one logs in. libpq waits for 10 seconds, and would know less. */
const REACH_MS = 8_000;
/** For what a program that has ended sent last. */
const END_MS = 1_000;
/** Of a first message, which has a user's name or an error in it. */
const MOST_BYTES = 64 * 1024;
/** How soon a server is looked for that says nothing: without that, one that is gone is waited for without end. */
const KEEPALIVE_MS = 30_000;

/** https://www.postgresql.org/docs/current/protocol-message-formats.html */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);
const CANCEL_REQUEST = 80_877_102;
const SASL = 10;
/** Said before an answer: which protocol is spoken, and notices. */
const BEFORE_ANSWER = ["v", "N"];

/**
 * The way to a server for a program of PostgreSQL's whose libpq has no TLS: a socket of ours, which nobody else can get to. TLS is spoken from here,
 * as the login says.
 */
export interface TlsRelay {
  /** Where the program finds its server. */
  directory: string;
  /** What kept the program from the server, if anything has: it sees no more than the end of its connection. */
  problem(): UserError | undefined;
  close(): Promise<void>;
}

/** @throws UserError Environment */
export async function startRelay(login: Login, reachMs = REACH_MS): Promise<TlsRelay> {
  // Of mode 0700.
  const directory = await mkdtemp(join(tmpdir(), "synapse-shards-pg-"));
  const relayed = new Set<Promise<void>>();
  const live = new Set<Socket>();
  let problem: UserError | undefined;
  let isClosing = false;
  const failed = (error: unknown) => {
    if (!isClosing) problem ??= connectProblem(error, login);
  };
  const track: Track = (socket) => {
    live.add(socket);
    // Whoever waits for it hears of it.
    socket.on("error", () => {}).once("close", () => live.delete(socket));
    return socket;
  };
  const server = createServer((client) => {
    const one = relay(track(client), { login, reachMs, track }, failed)
      .catch(failed)
      .finally(() => {
        client.destroySoon();
        relayed.delete(one);
      });
    relayed.add(one);
  });
  const close = async () => {
    isClosing = true;
    server.close();
    await Promise.race([Promise.all(relayed), sleep(END_MS, undefined, { ref: false })]);
    for (const socket of live) socket.destroy(new Error("the program has ended"));
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await once(server.listen(join(directory, `.s.PGSQL.${login.port}`)), "listening");
  } catch (error) {
    await close();
    throw new UserError("Environment", `no socket can be made in ${directory}`, { cause: error });
  }
  let closed: Promise<void> | undefined;
  return { directory, problem: () => problem, close: () => (closed ??= close()) };
}

type Track = <S extends Socket>(socket: S) => S;

interface Way {
  login: Login;
  reachMs: number;
  track: Track;
}

async function relay(client: Socket, way: Way, failed: (error: unknown) => void): Promise<void> {
  const [hello, more] = await firstOf(client, (got) => (got.length < 8 ? undefined : got.readUInt32BE(0)));
  const { server, answer } = await reach(way, hello);
  const ended = Promise.all([closed(client), closed(server)]);
  server.once("error", (error) => client.readableEnded || failed(error));
  client.once("close", () => server.destroySoon());
  server.once("close", () => client.destroySoon());
  client.write(answer);
  server.write(more);
  client.pipe(server).pipe(client);
  await ended;
}

/** @returns a connection on which the server has answered, or is about to do what it is asked */
async function reach(way: Way, hello: Buffer): Promise<Reached> {
  const encryptions = encryptionOf(way.login).filter((each) => each !== undefined);
  for (const [index, encryption] of encryptions.entries()) {
    const reached = await attempt(way, encryption, hello, index === encryptions.length - 1);
    if (reached) return reached;
  }
  throw withoutTls(way.login);
}

interface Reached {
  server: Socket;
  answer: Buffer;
}

/** @returns undefined where the server does not want to speak like that, and there is another way */
async function attempt(
  { login: { host, port }, reachMs, track }: Way,
  encryption: Encryption,
  hello: Buffer,
  isLast: boolean,
): Promise<Reached | undefined> {
  const socket = track(connect({ host, port, keepAlive: true, keepAliveInitialDelay: KEEPALIVE_MS }));
  let server: Socket = socket;
  let isReached = false;
  const late = setTimeout(() => server.destroy(new Error(`timeout of ${reachMs / 1000} seconds`)), reachMs);
  try {
    await once(socket, "connect");
    if (encryption) {
      socket.write(SSL_REQUEST);
      const [word, rest] = await firstOf(socket, () => 1);
      if (word.toString() === "N") return undefined;
      if (word.toString() !== "S") throw new Error("what answers there is no PostgreSQL");
      // It came by the open network, and would be taken for the server's own word: CVE-2021-23222.
      if (rest.length > 0)
        throw new Error("data came unencrypted where TLS was to begin, as if somebody were in between");
      const name = isIP(host) ? {} : { servername: host };
      server = track(connectTls({ socket, host, ...name, ...encryption }));
      await once(server, "secureConnect");
    }
    server.write(hello);
    isReached = hello.readUInt32BE(4) === CANCEL_REQUEST;
    if (isReached) return { server, answer: Buffer.alloc(0) };
    const [answer, rest] = await firstOf(server, (got) => answerIn(got)?.end);
    const { start } = answerIn(answer) ?? { start: 0 };
    if (String.fromCharCode(answer[start] ?? 0) === "E" && !isLast) return undefined;
    isReached = true;
    return { server, answer: Buffer.concat([withoutChannelBinding(answer, start), rest]) };
  } finally {
    clearTimeout(late);
    if (!isReached) for (const each of [server, socket]) each.destroy();
  }
}

/** @returns the first message, and what came with it */
async function firstOf(socket: Socket, lengthOf: (got: Buffer) => number | undefined): Promise<[Buffer, Buffer]> {
  let got = Buffer.alloc(0);
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    got = Buffer.concat([got, chunk as Buffer]);
    const length = lengthOf(got) ?? 0;
    if (Math.max(length, got.length - length) > MOST_BYTES) throw new Error("what answers there is no PostgreSQL");
    if (length > 0 && got.length >= length) return [got.subarray(0, length), got.subarray(length)];
  }
  throw new Error("Connection terminated before it was answered");
}

/** Where the server's first answer is, which may not have come as a whole. */
function answerIn(got: Buffer): { start: number; end: number } | undefined {
  for (let start = 0; got.length >= start + 5;) {
    const end = start + 1 + got.readUInt32BE(start + 1);
    if (!BEFORE_ANSWER.includes(String.fromCharCode(got[start] ?? 0))) return { start, end };
    start = end;
  }
  return undefined;
}

/** A libpq without TLS ends a connection where logging in is offered that is bound to TLS. */
function withoutChannelBinding(answer: Buffer, start: number): Buffer {
  const head = start + 9;
  if (answer[start] !== "R".charCodeAt(0) || answer.length < head || answer.readUInt32BE(start + 5) !== SASL)
    return answer;
  const names = answer.subarray(head).toString("latin1").split("\0");
  const kept = names.filter((name) => name !== "" && !name.endsWith("-PLUS"));
  const list = Buffer.from(`${kept.map((name) => `${name}\0`).join("")}\0`, "latin1");
  const edited = Buffer.concat([answer.subarray(0, head), list]);
  edited.writeUInt32BE(edited.length - start - 1, start + 1);
  return edited;
}

async function closed(socket: Socket): Promise<void> {
  if (!socket.closed) await once(socket, "close").catch(() => {});
}
