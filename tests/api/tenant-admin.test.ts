import fastify from "fastify";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { registerAuthentication } from "../../src/api/access/authentication.ts";
import { registerAuthorization } from "../../src/api/access/authorization.ts";
import { limitedWords } from "../../src/api/access/without-others.ts";
import { TENANT_ADMIN_RULES } from "../../src/api/access/tenant-admin-rules.ts";
import { noJob, type BackupService } from "../../src/controller/service/backup-service.ts";
import type { CertificateService } from "../../src/controller/service/certificate-service.ts";
import type { BackupManifest, Job } from "../../src/model/backup.ts";
import { belongsTo, likeTenant } from "../../src/model/holder.ts";
import type { Actor } from "../../src/model/role.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import { type ApiUnderTest, startApiUnderTest } from "./api-under-test.ts";
import { MemoryService } from "./memory-service.ts";

/** A tenant that the tenant admin may not even know of. */
const THEIRS = "their-canary";
const OURS = "our-clinic";
const NOBODY = "nobody-here";
const LATER = "2026-11-24T10:00:00.000Z";
const EARLIER = "2026-11-22T10:00:00.000Z";

let api: ApiUnderTest;
let service: MemoryService;
let token: string;
let jobs: Job[];
let takenAt: string;

beforeEach(async () => {
  service = new MemoryService();
  service.addShard("1.163.2-0");
  for (const [name, customer] of [
    [OURS, "us"],
    [THEIRS, "them"],
  ] as const) {
    const tenant = service.addTenant(name, {}, `server_notices: {room_name: "${name}"}\n`);
    tenant.spec.labels = { customer };
    service.run(tenant, "1.163.2-0");
    await service.moveTenant(name, { to: "1.163.2-0" });
    tenant.status.message = `${name} is odd`;
    service.addEvent({ type: "Normal", reason: "Moved", object: `Tenant/${name}`, message: `${name} moved` }, LATER);
    const row = { tenant: name, serverName: tenant.spec.serverName, month: "2026-11", cpuSeconds: 1, requests: 2 };
    service.usage.push({ ...row, updatedAt: LATER });
    service.addTenant(`${name}-gone`).spec.labels = { customer };
    await service.deleteTenant(`${name}-gone`, { purge: false });
  }
  service.tenants.get(OURS)!.spec.placement = { spreadFrom: [THEIRS] };
  service.addEvent({ type: "Normal", reason: "ShardCreated", object: "Shard/1.163.2-0", message: `for ${THEIRS}` });
  service.problems = [`${THEIRS} is odd`];
  api = await startApiUnderTest(service, { parts: { backups: backups(), certificates: certificates() } });
  token = api.namedTokens.create("reseller", "tenant-admin", { tenants: "customer=us" });
  for (const name of [OURS, THEIRS])
    for (const path of [`/v1/tenants/${name}`, `/v1/tenants/${name}/sleep`])
      api.audited.push({ ...entry(path), time: LATER, actor: "ada", changes: CHANGES });
});
afterEach(() => api.close());

/** An operator's: beside whom theirs is not to be is not theirs to know. */
const CHANGES = [
  { field: "placement", before: null, after: { spreadFrom: [THEIRS] } },
  { field: "plan", before: null, after: "small" },
];

const entry = (path: string) => ({
  role: "operator" as const,
  action: "updateTenant",
  method: "PATCH",
  path,
  status: 200,
  client: "203.0.113.9",
});

const jobOf = (tenant: string): Job => ({
  id: `job-of-${tenant}`,
  kind: "Backup",
  tenant,
  state: "Succeeded",
  message: `${tenant} is backed up`,
  requestedAt: LATER,
  finishedAt: LATER,
});

function backups(): BackupService {
  jobs = [OURS, THEIRS].map(jobOf);
  takenAt = LATER;
  const of = (tenant: string, takenAt = LATER, serverName = `${tenant}.localhost`) => ({
    backup: { id: takenAt, tenant, serverName, takenAt } as BackupManifest,
  });
  const parts: Partial<BackupService> = {
    jobs: () => jobs,
    job: (id) => {
      const job = jobs.find((one) => one.id === id);
      if (!job) throw noJob(id);
      return job;
    },
    // One is of another customer's tenant, which had the name before.
    list: async (tenant) => [of(tenant, takenAt), of(tenant, EARLIER), of(tenant, LATER, `${THEIRS}.example`)],
    newest: async () => [OURS, THEIRS].map((tenant) => ({ ...of(tenant), count: 1 })),
    backUp: async () => jobs[0]!,
  };
  return parts as BackupService;
}

function certificates(): CertificateService {
  const list = [OURS, THEIRS, null].map((tenant) => ({ name: `${tenant ?? THEIRS}.example`, tenant, state: "Valid" }));
  return { list: () => list } as unknown as CertificateService;
}

interface Call {
  id: string;
  method: string;
  path: string;
}

async function calls(): Promise<Call[]> {
  const { paths } = (await (await api.request("/v1/openapi.json")).json()) as {
    paths: Record<string, Record<string, { operationId: string }>>;
  };
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { operationId: id }]) => ({ id, method: method.toUpperCase(), path })),
  );
}

const asReseller = async (method: string, path: string, body?: object) => {
  const init = body === undefined ? {} : { body: JSON.stringify(body) };
  const answer = await api.request(path, { method, token, ...init });
  return { status: answer.status, text: await answer.text() };
};

test("every route of the document has a rule for tenant admins, and every rule a route", async () => {
  const ids = (await calls()).map(({ id }) => id).toSorted();
  expect(Object.keys(TENANT_ADMIN_RULES).toSorted()).toEqual(ids);
});

describe("a tenant admin", () => {
  test("is refused on every route that is the cluster's", async () => {
    for (const { id, method, path } of await calls()) {
      if (TENANT_ADMIN_RULES[id] !== "never" || path === "/metrics") continue;
      const { status } = await asReseller(method, path.replaceAll(/\{\w+\}/g, OURS), method === "GET" ? undefined : {});
      // Gateways' routes take no other token.
      const refusal = /^\/v1\/(routes|gateway\/)/.test(path) ? 401 : 403;
      expect([id, status]).toEqual([id, refusal]);
    }
  });

  test("meets another's tenant as one that is not there, whatever is asked", async () => {
    let asked = 0;
    for (const { id, method, path } of await calls()) {
      if (typeof TENANT_ADMIN_RULES[id] !== "object") continue;
      expect([id, path.startsWith("/v1/tenants/{name}")]).toEqual([id, true]);
      const ask = async (name: string) => {
        const { status, text } = await asReseller(method, path.replaceAll(/\{\w+\}/g, name));
        return { id, status, text: text.replaceAll(name, "NAME") };
      };
      const answer = await ask(THEIRS);
      expect(answer).toEqual(await ask(NOBODY));
      expect([id, answer.status]).toEqual([id, 404]);
      asked += 1;
    }
    expect(asked).toBeGreaterThan(10);
  });

  test("reads nothing of others' tenants, on any route, filtered or not", async () => {
    for (const { id, method, path } of await calls()) {
      const isAsked = TENANT_ADMIN_RULES[id] !== "never" && !/^\/(metrics|v1\/session)/.test(path);
      if (method !== "GET" || !isAsked) continue;
      const { status, text } = await asReseller(
        method,
        path.replace("{id}", `job-of-${OURS}`).replaceAll(/\{\w+\}/g, OURS),
      );
      expect([id, status]).toEqual([id, 200]);
      expect([id, text.includes(THEIRS)]).toEqual([id, false]);
      const isAboutOurs = TENANT_ADMIN_RULES[id] === "filtered";
      expect([id, isAboutOurs && !text.includes(OURS)]).toEqual([id, false]);
    }
  });

  test("learns of no numbers but of its own", async () => {
    const read = async (path: string) => JSON.parse((await asReseller("GET", path)).text) as Record<string, unknown>;
    expect(await read("/v1/status")).toMatchObject({
      tenants: { total: 1, byPhase: { Running: 1 } },
      imageTags: [],
      gateways: [],
      problems: [],
      recentMoves: [{ tenant: OURS }],
    });
    expect(await read("/v1/tenants?limit=10&offset=0")).toMatchObject({ total: 1 });
    expect(await read(`/v1/tenants?search=${THEIRS}`)).toMatchObject({ total: 0, items: [] });
    expect(await read("/v1/tenants?selector=customer=them")).toMatchObject({ total: 0, items: [] });
    expect(await read("/v1/problems?limit=1")).toMatchObject({ total: 1 });
  });

  test("is not shown what the one who asked before was shown", async () => {
    const page = "/v1/tenants?limit=10";
    expect(await (await api.request(page)).json()).toMatchObject({ total: 2 });
    expect(JSON.parse((await asReseller("GET", page)).text)).toMatchObject({ total: 1 });
    expect(await (await api.request(page)).json()).toMatchObject({ total: 2 });
  });

  test("asks for a job, an object or a month of others in vain, as for what is not there", async () => {
    for (const path of ["/v1/jobs/job-of-NAME", "/v1/usage?tenant=NAME", "/v1/events?object=Tenant/NAME"]) {
      const ask = async (name: string) => {
        const { status, text } = await asReseller("GET", path.replace("NAME", name));
        return { status, text: text.replaceAll(name, "NAME") };
      };
      expect(await ask(THEIRS)).toEqual(await ask(NOBODY));
    }
  });

  test("sees nothing of an earlier tenant of the same name", async () => {
    const message = "the one before was moved";
    service.addEvent({ type: "Normal", reason: "Moved", object: `Tenant/${OURS}`, message }, EARLIER);
    api.audited.push({ ...entry(`/v1/tenants/${OURS}?before`), time: EARLIER, actor: "ada" });
    const row = { tenant: OURS, serverName: "before.example", month: "2026-11", cpuSeconds: 9, requests: 9 };
    service.usage.push({ ...row, updatedAt: EARLIER });
    expect((await asReseller("GET", "/v1/events")).text).not.toContain(message);
    expect((await asReseller("GET", "/v1/audit")).text).not.toContain("?before");
    expect((await asReseller("GET", `/v1/usage?tenant=${OURS}`)).text).not.toContain("before.example");
    const { items } = JSON.parse((await asReseller("GET", `/v1/tenants/${OURS}/backups`)).text) as { items: unknown[] };
    expect(items).toHaveLength(1);
  });

  test("sees nothing of the tenant that had the name until its own was renamed to it", async () => {
    const message = "the one before was moved";
    const between = new Date(Date.now() - 60_000).toISOString();
    service.tenants.get(OURS)!.status.formerNames = [{ name: "ours-before", until: new Date().toISOString() }];
    service.addEvent({ type: "Normal", reason: "Moved", object: `Tenant/${OURS}`, message }, between);
    api.audited.push({ ...entry(`/v1/tenants/${OURS}?before`), time: between, actor: "ada" });
    expect((await asReseller("GET", "/v1/events")).text).not.toContain(message);
    expect((await asReseller("GET", "/v1/audit")).text).not.toContain("?before");
  });

  test("follows the events of its tenants alone, also as server-sent events", async () => {
    for (const accept of ["text/event-stream", "application/x-ndjson"]) {
      const { body } = await api.request("/v1/events?follow=true", { token, headers: { accept } });
      const reader = body!.pipeThrough(new TextDecoderStream()).getReader();
      const last = `${OURS} has news, ${accept}`;
      service.addEvent({ type: "Normal", reason: "Moved", object: `Tenant/${THEIRS}`, message: `${THEIRS} news` });
      service.addEvent({ type: "Normal", reason: "Moved", object: `Tenant/${OURS}`, message: last });
      let text = "";
      while (!text.includes(last)) text += (await reader.read()).value ?? "";
      expect(text).not.toContain(THEIRS);
      await reader.cancel();
    }
  });

  test("is not told the name of who has what its tenant wants", async () => {
    const made = `${OURS} was created for a.example ${likeTenant(THEIRS)}, without its database`;
    service.addEvent({ type: "Normal", reason: "Created", object: `Tenant/${OURS}`, message: made });
    expect((await asReseller("GET", "/v1/events")).text).toContain("as another tenant is, without its database");
    const message = belongsTo("host chat.example", THEIRS);
    service.fail(service.tenants.get(OURS)!, "HostTaken", message);
    service.addEvent({ type: "Warning", reason: "HostTaken", object: `Tenant/${OURS}`, message });
    for (const path of [`/v1/tenants/${OURS}`, "/v1/tenants", "/v1/problems", "/v1/events"]) {
      const { text } = await asReseller("GET", path);
      expect([path, text.includes("belongs to another tenant already")]).toEqual([path, true]);
      expect([path, text.includes(THEIRS)]).toEqual([path, false]);
    }
  });

  test("configures its tenant, and changes nothing that limits it or decides what it takes", async () => {
    const path = `/v1/tenants/${OURS}`;
    const patch = (body: object) => asReseller("PATCH", path, body);
    expect((await patch({ config: "enable_registration: false\n" })).status).toBe(200);
    expect((await asReseller("GET", `${path}?includeConfig=true`)).text).toContain("enable_registration");
    expect((await patch({ labels: { contact: "ada" } })).status).toBe(200);
    const before = structuredClone(service.tenants.get(OURS)!.spec);
    for (const body of [
      { labels: { customer: "them" } },
      { labels: { customer: null } },
      { labels: { contact: "bob", customer: "us" } },
      { plan: "large" },
      { plan: null },
      { quotas: { users: 1000 } },
      { metrics: ["all"] },
      { placement: { shard: "1.163.2-0" } },
      { release: "1.164.0" },
      { hibernation: { mode: "Never" } },
      { config: "", quotas: {} },
    ])
      expect([body, (await patch(body)).status]).toEqual([body, 403]);
    expect(service.tenants.get(OURS)!.spec).toEqual(before);
  });

  test("loses a tenant with its label at once", async () => {
    service.tenants.get(OURS)!.spec.labels = { customer: "them" };
    expect((await asReseller("GET", `/v1/tenants/${OURS}`)).status).toBe(404);
    expect((await asReseller("GET", "/v1/events")).text).toBe("");
  });

  test("loses a stream with the tenant that it is of, also to another one of that name", async () => {
    const app = fastify();
    const { apiToken, gatewayToken } = { apiToken: "owner", gatewayToken: "gateway" };
    const actor: Actor = { name: "reseller", role: "tenant-admin", tenants: "customer=us" };
    registerAuthentication(app, { apiToken, gatewayToken, actorOf: () => actor });
    const original = service.tenants.get(OURS)!;
    let there: Tenant | undefined | Error = original;
    registerAuthorization(app, async () => {
      if (there instanceof Error) throw there;
      return there;
    });
    let isStillGood: (() => Promise<boolean>) | undefined;
    const schema = { operationId: "tenantLogs" };
    app.get("/v1/tenants/:name/logs", { schema }, async (request) => {
      ({ isStillGood } = request);
      return "";
    });
    await app.inject({ url: `/v1/tenants/${OURS}/logs`, headers: { authorization: "Bearer reseller" } });
    expect(await isStillGood?.()).toBe(true);
    const relabelled = { ...original, spec: { ...original.spec, labels: { customer: "them" } } };
    const later = { ...original, metadata: { ...original.metadata, creationTimestamp: LATER } };
    for (const now of [relabelled, later, undefined, new Error("the store is away")]) {
      there = now;
      expect(await isStillGood?.()).toBe(false);
    }
    there = original;
    expect(await isStillGood?.()).toBe(true);
    await app.close();
  });

  test("reads of its log what its own homeserver wrote, and operators also what mentions it", async () => {
    const asked: unknown[] = [];
    service.tenantLog = async function* (_name, { isOwnOnly }) {
      asked.push(isOwnOnly);
      yield "a line";
    };
    expect((await asReseller("GET", `/v1/tenants/${OURS}/logs`)).status).toBe(200);
    await (await api.request(`/v1/tenants/${OURS}/logs`)).text();
    expect(asked).toEqual([true, false]);
  });

  test("begins a backup once an hour, which others are not kept waiting for", async () => {
    const path = `/v1/tenants/${OURS}/backups`;
    const now = new Date().toISOString();
    const { finishedAt: _, ...underWay } = jobOf(OURS);
    const job: Job = { ...underWay, requestedAt: now };
    jobs.push(job);
    // One under way is joined.
    expect((await asReseller("POST", path)).status).toBe(202);
    job.finishedAt = now;
    const { status, text } = await asReseller("POST", path);
    expect([status, text]).toEqual([429, expect.stringContaining("one an hour: again from")]);
    expect((await api.request(path, { method: "POST" })).status).toBe(202);
    job.requestedAt = new Date(Date.now() - 3_601_000).toISOString();
    expect((await asReseller("POST", path)).status).toBe(202);
    // Also one of the schedule, or of before a restart.
    takenAt = now;
    expect((await asReseller("POST", path)).status).toBe(429);
  });

  test("is not told how many backups there are, as an earlier tenant's are among them", async () => {
    const { items } = JSON.parse((await asReseller("GET", "/v1/backups")).text) as { items: object[] };
    expect(items).toHaveLength(1);
    expect(items[0]).not.toHaveProperty("count");
    expect(JSON.stringify(await (await api.request("/v1/backups")).json())).toContain('"count":1');
  });

  test("has ten configurations checked a minute", async () => {
    const path = `/v1/tenants/${OURS}/config/check`;
    const statuses: number[] = [];
    for (let count = 0; count < 11; count += 1) statuses.push((await asReseller("POST", path, { config: "" })).status);
    expect(statuses).toEqual([...Array<number>(10).fill(200), 429]);
    const init = { method: "POST", body: JSON.stringify({ config: "" }) };
    for (let count = 0; count < 11; count += 1) expect((await api.request(path, init)).status).toBe(200);
  });

  test("learns of a server that its configuration names only that it does not answer", async () => {
    const path = `/v1/tenants/${OURS}/config/check`;
    const said = new Set<string>();
    for (const reason of ["connect ECONNREFUSED 127.0.0.1:22", "Connection terminated unexpectedly", "timeout expired"])
      for (const words of ["does not answer", "cannot be connected to"]) {
        const message = `PostgreSQL at 127.0.0.1:22 ${words}: ${reason}`;
        service.checkConfig = async () => ({
          verdict: "Refused",
          reason: "DatabaseUnreachable",
          message,
          warnings: [],
        });
        said.add(limitedWords(message));
        if (said.size === 1 && words === "does not answer" && reason.startsWith("connect"))
          said.add((JSON.parse((await asReseller("POST", path, { config: "" })).text) as { message: string }).message);
      }
    expect([...said]).toEqual(["PostgreSQL at 127.0.0.1:22 does not answer"]);
    expect(limitedWords("the database cannot be reached: Connection refused")).toBe("the database does not answer");
  });

  test("is not told where operators are, and sees itself", async () => {
    const { text } = await asReseller("GET", "/v1/audit");
    expect(text).toContain('"actor":"ada"');
    expect(text).not.toContain("203.0.113.9");
    expect(JSON.parse((await asReseller("GET", "/v1/whoami")).text)).toEqual({
      name: "reseller",
      role: "tenant-admin",
      tenants: "customer=us",
    });
  });
});

test("a tenant admin without tenants, and a limit on another role, are refused", async () => {
  const make = async (body: object) => {
    const answer = await api.request("/v1/tokens", { method: "POST", body: JSON.stringify({ name: "x", ...body }) });
    return { status: answer.status, text: await answer.text() };
  };
  const wrong: [object, string][] = [
    [{ role: "tenant-admin" }, "needs a selector"],
    [{ role: "operator", tenants: "customer=us" }, "for the whole cluster"],
    [{ role: "tenant-admin", tenants: "customer=" + "x".repeat(70) }, "no value of a label"],
    [{ role: "tenant-admin", tenants: "" }, "selector"],
  ];
  for (const [body, words] of wrong) {
    const { status, text } = await make(body);
    expect([body, status]).toEqual([body, 422]);
    expect(text).toContain(words);
  }
  expect((await make({ role: "tenant-admin", tenants: "customer=us" })).status).toBe(201);
});
