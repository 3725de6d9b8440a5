import { PassThrough } from "node:stream";
import pino from "pino";
import { Registry } from "prom-client";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { verifyChain } from "../../src/api/audit-chain.ts";
import type { AuditEntry } from "../../src/api/audit.ts";
import { Accounts } from "../../src/api/access/accounts/accounts.ts";
import { AccountSignIn } from "../../src/api/access/accounts/sign-in.ts";
import type { ConsoleAccess } from "../../src/api/access/console-access.ts";
import { Sessions } from "../../src/api/access/sessions.ts";
import { FileUses } from "../../src/api/access/last-uses.ts";
import { FileTokens } from "../../src/api/access/named-tokens.ts";
import { startApi, type ApiOptions } from "../../src/api/server.ts";
import type { NotificationService } from "../../src/controller/service/notification-service.ts";
import type { ControllerContext } from "../../src/controller/context.ts";
import { StoreFleetService } from "../../src/controller/service/fleet-service.ts";
import { UserError } from "../../src/model/errors.ts";
import { LocalStore } from "../../src/platforms/local/store/local-store.ts";
import { RouteFeed } from "../../src/controller/routes/route-feed.ts";
import { MemoryService } from "./memory-service.ts";

export const API_TOKEN = "api-token-of-the-test";
export const GATEWAY_TOKEN = "gateway-token-of-the-test";

/** The real API on a free port, over a service of nothing but objects. */
export async function startApiUnderTest(
  service = new MemoryService(),
  {
    metricsNeedToken = false,
    consoleHosts = [],
    now = () => new Date(),
    port = 0,
    parts = {},
    signIn = () => ({}),
  }: {
    metricsNeedToken?: boolean;
    consoleHosts?: string[];
    now?: () => Date;
    port?: number;
    /** Of the API, those that a test brings itself. */
    parts?: Partial<ApiOptions>;
    /** How people sign in, besides with tokens. */
    signIn?: (sessions: Sessions) => Partial<ConsoleAccess>;
  } = {},
) {
  const logged: string[] = [];
  const sink = new PassThrough();
  sink.on("data", (chunk: Buffer) => logged.push(chunk.toString()));
  const routeFeed = new RouteFeed();
  const metrics = new Registry();
  let shutdowns = 0;
  const directory = mkdtempSync(join(tmpdir(), "api-"));
  const tokensFile = join(directory, "tokens.json");
  const problems: string[] = [];
  const stateFile = (file: string) => ({
    file,
    write: (text: string) => writeFileSync(file, text),
    onProblem: (problem: string) => void problems.push(problem),
  });
  const uses = new FileUses(stateFile(join(directory, "token-uses.json")), now);
  const namedTokens = new FileTokens({ ...stateFile(tokensFile), uses, now });
  const audited: AuditEntry[] = [];
  const notifications: NotificationService = {
    channels: () => [{ name: "ops", kind: "webhook", topics: ["quota"], failures: 1, problem: "it answers with 500" }],
    test: async () => [
      { name: "ops", ok: false, message: "it answers with 500" },
      { name: "night", ok: true, message: "it was taken" },
    ],
  };
  const store = new LocalStore(":memory:");
  const sessions = new Sessions(() => [API_TOKEN], now);
  let consoleUrl = "";
  const accounts = new Accounts(stateFile(join(directory, "accounts.json")), now);
  const accountSignIn = new AccountSignIn({
    accounts,
    sessions,
    consoleUrl: () => consoleUrl,
    protect: {
      seal: (text) => text.split("").toReversed().join(""),
      open: (text) => text.split("").toReversed().join(""),
    },
    now,
  });
  const { url, close } = await startApi({
    service,
    notifications,
    fleet: new StoreFleetService(fleetContext(store)),
    routeFeed,
    host: "127.0.0.1",
    port,
    apiToken: API_TOKEN,
    gatewayToken: GATEWAY_TOKEN,
    metrics,
    namedTokens,
    audit: {
      append: (entry) => audited.push(entry) > 0,
      read: async function* ({ tail }) {
        yield* tail === undefined ? audited : audited.slice(-tail);
      },
      verify: () => verifyChain(audited.map((entry) => JSON.stringify(entry))),
    },
    metricsNeedToken,
    console: { sessions, hosts: consoleHosts, url: () => consoleUrl, accounts: accountSignIn, ...signIn(sessions) },
    logger: pino({ level: "debug" }, sink),
    onShutdown: () => void (shutdowns += 1),
    ...parts,
  });
  consoleUrl = url.replace("127.0.0.1", "localhost");
  return {
    service,
    /** Where the fleet is kept. */
    store,
    routeFeed,
    metrics,
    url,
    tokensFile,
    namedTokens,
    accounts,
    directory,
    problems,
    audited,
    close: async () => {
      await close();
      rmSync(directory, { recursive: true, force: true });
    },
    logged: () => logged.join(""),
    shutdowns: () => shutdowns,
    /** A request with the token of people, unless another is given (null: none). */
    request(path: string, { token = API_TOKEN, ...init }: RequestInit & { token?: string | null } = {}) {
      const headers = new Headers(init.headers);
      if (token !== null) headers.set("authorization", `Bearer ${token}`);
      if (init.body !== undefined && !headers.has("content-type")) headers.set("content-type", "application/json");
      return fetch(`${url}${path}`, { ...init, headers });
    },
  };
}
/** All that the fleet's service needs; there are releases up to 1.199. */
function fleetContext(store: LocalStore): ControllerContext {
  const refuse = async (release: string) => {
    if (/^1\.1\d\d\./.test(release)) return undefined;
    throw new UserError("UnknownRelease", `there is no release ${release} of matrix-synapse`);
  };
  const parts = {
    store,
    databases: { facts: () => undefined },
    launcher: { checkRelease: refuse },
    reader: { values: () => [], get: () => undefined, withStorage: () => undefined },
  };
  return parts as unknown as ControllerContext;
}

export type ApiUnderTest = Awaited<ReturnType<typeof startApiUnderTest>>;
