import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { stringify } from "yaml";
import { describe, VERSIONS, type Action, type Step, type Wishes } from "./actions.ts";
import { Client } from "./clients.ts";
import { signal, type SoakCluster } from "./cluster.ts";
import { controllerFacts, gatherFacts } from "./facts.ts";
import { exceeded, judge, unsettled, type Limits, type ShardFacts, type TenantFacts } from "./oracle.ts";
import { Rests } from "./rests.ts";
import { LogSweep, type Secret } from "./secrets.ts";
import type { Witness } from "./witness.ts";

/** A move that was rolled back is retried after half a minute, then after a minute; a busy machine doubles that. */
const SETTLE_MS = 240_000;
const POLL_MS = 250;
/** Wait after the last action of a step, so that load meets its effects. */
const LOAD_AFTER_MS = 700;
/** How often a tenant is asked to sleep until what is due. */
const ASKED_TO_SLEEP = 10;
/** For what is due within this time, nobody falls asleep unasked. */
const SOON_SECONDS = 60;
/** The cluster may change between two observations (consolidation); then it is observed again. */
const LOOKS = 20;
/** A problem that persists over this many observations, a second apart, is not a recovery under way. */
const PERSISTS = 6;
const often = { per_second: 10_000, burst_count: 10_000 };
const UNLIMITED = {
  rc_message: often,
  rc_login: { address: often, account: often, failed_attempts: often },
  rc_room_creation: often,
};

/** A problem that was found; it ends the run. */
export class Violation extends Error {
  readonly findings: string[];
  constructor(findings: string[]) {
    super(findings.join("\n"));
    this.name = "Violation";
    this.findings = findings;
  }
}

/** Carries out steps on a cluster; the oracle judges the outcome of each. */
export class Run {
  readonly #cluster: SoakCluster;
  readonly #limits: Limits;
  readonly #clients = new Map<string, Client>();
  readonly #sweep: LogSweep;
  readonly #rests = new Rests();
  readonly #secrets = new Map<string, Secret>();
  readonly #paused = new Set<Promise<void>>();
  /** Limits must hold at any time, not only when settled. */
  readonly #exceeded = new Set<string>();
  readonly #note: (line: string) => void;
  readonly #witness: Witness | undefined;
  #wasGraceful = true;

  /** @param witness another server; absent: nobody looks from outside */
  constructor(cluster: SoakCluster, limits: Limits, note: (line: string) => void, witness?: Witness) {
    this.#cluster = cluster;
    this.#witness = witness;
    this.#limits = limits;
    this.#sweep = new LogSweep(cluster.dataDir);
    this.#note = note;
  }

  /** @returns a line about it; @throws Violation */
  async step(step: Step): Promise<string> {
    for (const client of this.#clients.values()) client.failures.length = 0;
    const begun = Date.now();
    this.#witness?.begin();
    for (const { afterMs, action } of step.actions) {
      await sleep(afterMs);
      this.#note(`step ${step.number}: ${describe(action)}: ${await this.#do(action)}`);
    }
    await sleep(LOAD_AFTER_MS);
    await Promise.all(this.#paused);
    await this.#witness?.pause();
    const acted = Date.now();
    await this.#settle(step.wishes);
    const settled = Date.now();
    await this.#enterNewcomers(step.wishes);
    const findings = await this.#findings(step.wishes);
    const failures = [...this.#clients.values()].flatMap((client) => client.failures);
    const away = this.#witness?.foundAway(begun) ?? [];
    const afterHarm = !this.#wasGraceful;
    this.#wasGraceful = step.graceful;
    if (step.graceful) {
      if (!afterHarm)
        findings.push(...away.map((name) => `another server backed off from ${name} in a step without any failure`));
      findings.push(
        ...failures
          // What was under way in a step with harm may fail in the next one.
          .filter((failure) => !afterHarm || failure.begun >= begun)
          .slice(0, 10)
          .map(({ at, what }) => `a client saw a failure in a step without any: ${new Date(at).toISOString()} ${what}`),
      );
    }
    if (findings.length > 0) throw new Violation(findings);
    const sent = [...this.#clients.values()].reduce((sum, client) => sum + client.acknowledged.length, 0);
    const seconds = (from: number, to: number): string => ((to - from) / 1000).toFixed(1);
    return `settled in ${seconds(acted, settled)} s, checked in ${seconds(settled, Date.now())} s; ${this.#clients.size} tenants, ${sent} messages, ${failures.length} failed requests, ${away.length} found away, ${this.#rests.describe()}`;
  }

  /** Everybody is used again: what was said to those who rested is there too. @throws Violation */
  async finish(last: Step): Promise<void> {
    const wishes = Object.fromEntries(
      Object.entries(last.wishes).map(([name, wish]) => [name, { ...wish, resting: false }]),
    );
    await this.step({ ...last, actions: [], wishes, graceful: false });
    if (this.#rests.isOddlyAwake()) throw new Violation(["tenants rested for minutes, and not one fell asleep"]);
  }

  /** The first tenant of a release waits for its template; making it here keeps that wait out of later steps. */
  async makeTemplates(): Promise<void> {
    for (const version of VERSIONS) {
      const tenant = "first";
      await this.#create({ type: "create", tenant, version, uploadMegabytes: 1 });
      await this.#settle({ [tenant]: { state: "present", version, uploadMegabytes: 1 } });
      await this.#delete(tenant, true);
      await this.#settle({});
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#paused);
    await this.#witness?.close();
    await Promise.all([...this.#clients.values()].map((client) => client.close()));
  }

  /** @returns what came of it, in a word or two */
  async #do(action: Action): Promise<string> {
    switch (action.type) {
      case "create":
        return this.#create(action);
      case "delete":
        return this.#delete(action.tenant, action.purge);
      case "move":
        // A tenant that is moving, or has nowhere to go, is refused.
        return this.#ask("POST", `/v1/tenants/${action.tenant}/move`, {}, [202, 409]);
      case "upgrade":
        return this.#ask("PATCH", `/v1/tenants/${action.tenant}`, { release: action.version }, [200]);
      case "configure":
        return this.#ask(
          "PATCH",
          `/v1/tenants/${action.tenant}`,
          { config: this.#config(action.tenant, action.uploadMegabytes) },
          [200],
        );
      case "rest":
        return this.#rest(action);
      case "use":
        this.#clients.get(action.tenant)?.start();
        return "done";
      case "sleep":
        // Refused with the reason while it owes something to somebody, is moving, or its shard does not answer.
        return this.#ask("POST", `/v1/tenants/${action.who}/sleep`, undefined, [202, 409, 503]);
      case "wake":
        return this.#ask("POST", `/v1/tenants/${action.who}/wake`, undefined, [202]);
      case "drain": {
        const shard = await this.#shardOf(action.shardOf);
        return shard === undefined
          ? "has none"
          : `${shard} ${await this.#ask("POST", `/v1/shards/${shard}/drain`, undefined, [202, 404, 409])}`;
      }
      case "killShard": {
        const shard = await this.#shardOf(action.shardOf);
        const pid = shard && (await this.#cluster.shardPid(shard));
        if (pid) signal(pid, "SIGKILL");
        return `${shard} ${pid}`;
      }
      case "pauseShard":
        return this.#pause(action.shardOf, action.seconds);
      case "kill":
        return this.#kill(action.part);
      case "restart":
        await this.#cluster.restart("SIGINT");
        return "done";
    }
  }

  async #create({ tenant, version, uploadMegabytes }: Extract<Action, { type: "create" }>): Promise<string> {
    const config = this.#config(tenant, uploadMegabytes);
    const serverName = this.#witness
      ? { serverName: `${tenant}.localhost:${await this.#cluster.federationPort()}` }
      : {};
    return this.#ask("POST", "/v1/tenants", { name: tenant, release: version, config, ...serverName }, [201], [409]);
  }

  async #delete(tenant: string, purge: boolean): Promise<string> {
    const client = this.#clients.get(tenant);
    await client?.stop();
    this.#witness?.leave(tenant);
    const answer = await this.#ask("DELETE", `/v1/tenants/${tenant}?purge=${purge}`, undefined, [202], [404]);
    if (purge) {
      await client?.close();
      this.#clients.delete(tenant);
    }
    return answer;
  }

  /** One that is to do something soon does not fall asleep until then, unless it is asked to. */
  async #rest({ tenant, laterSeconds }: Extract<Action, { type: "rest" }>): Promise<string> {
    const rests = await this.#clients.get(tenant)?.rest(laterSeconds);
    if (laterSeconds === undefined || laterSeconds > SOON_SECONDS) return String(rests);
    // What was just sent may still be worked on.
    for (let attempt = 1; ; attempt++) {
      const answer = await this.#ask("POST", `/v1/tenants/${tenant}/sleep`, undefined, [202, 409, 503]);
      if (answer.startsWith("202") || attempt === ASKED_TO_SLEEP) return `${rests} ${answer}`;
      await sleep(POLL_MS);
    }
  }

  async #pause(tenant: string, seconds: number): Promise<string> {
    const shard = await this.#shardOf(tenant);
    const pid = shard && (await this.#cluster.shardPid(shard));
    if (!pid) return `${shard} has no process`;
    signal(pid, "SIGSTOP");
    const paused = sleep(seconds * 1000).then(() => {
      signal(pid, "SIGCONT");
      this.#paused.delete(paused);
    });
    this.#paused.add(paused);
    return `${shard} ${pid}`;
  }

  async #kill(part: Extract<Action, { type: "kill" }>["part"]): Promise<string> {
    if (part === "up") {
      await this.#cluster.restart("SIGKILL");
      return "and up again";
    }
    const pid = part === "postgres" ? await this.#cluster.postgresPid() : await this.#cluster.partPid(part);
    signal(pid, "SIGKILL");
    return String(pid);
  }

  /** @param alsoAfterRetry answers that are good when an earlier attempt may have had its effect */
  async #ask(
    method: "POST" | "PATCH" | "DELETE",
    path: string,
    body: unknown,
    good: number[],
    alsoAfterRetry: number[] = [],
  ): Promise<string> {
    const answer = await this.#cluster.api(method, path, body);
    const accepted = answer.attempts > 1 ? [...good, ...alsoAfterRetry] : good;
    const message = (answer.body as { error?: { message?: string } } | null)?.error?.message ?? "";
    if (!accepted.includes(answer.status))
      throw new Violation([`${method} ${path} was answered with ${answer.status}: ${message}`]);
    return `${answer.status}${message && ` ${message}`}`;
  }

  async #shardOf(tenant: string): Promise<string | undefined> {
    return (await controllerFacts(this.#cluster)).tenants.find(({ name }) => name === tenant)?.shard;
  }

  /** With a secret of the user's own, which must not appear anywhere either. */
  #config(tenant: string, uploadMegabytes: number): string {
    const secret = `turn-secret-of-${tenant}-${randomBytes(9).toString("hex")}`;
    this.#secrets.set(secret, { what: `the configuration of ${tenant}`, value: secret });
    return stringify({
      ...UNLIMITED,
      max_event_delay_duration: "1h",
      max_upload_size: `${uploadMegabytes}M`,
      turn_shared_secret: secret,
      ...(this.#witness ? { federation_verify_certificates: false } : {}),
    });
  }

  /** A tenant whose user has not begun yet, or not again, may sleep too. */
  async #settle(all: Wishes): Promise<{ tenants: TenantFacts[]; shards: ShardFacts[] }> {
    const isUsed = (name: string) => this.#clients.get(name)?.isInUse ?? false;
    const wishes = Object.fromEntries(
      Object.entries(all).map(([name, wish]) => [name, { ...wish, resting: !isUsed(name) }]),
    );
    const deadline = Date.now() + SETTLE_MS;
    for (;;) {
      const facts = await controllerFacts(this.#cluster);
      for (const finding of exceeded(facts.shards, this.#limits)) this.#exceeded.add(finding);
      this.#rests.note(facts.tenants, new Set(Object.keys(wishes).filter((name) => wishes[name]!.resting)));
      const left = unsettled(wishes, facts.tenants, facts.shards);
      if (left.length === 0) return facts;
      if (Date.now() > deadline)
        throw new Violation(left.map((what) => `not settled after ${SETTLE_MS / 1000} s: ${what}`));
      await sleep(POLL_MS);
    }
  }

  /** A new tenant gets its user; a tenant whose data were kept still has it. */
  async #enterNewcomers(wishes: Wishes): Promise<void> {
    const port = await this.#cluster.gatewayPort();
    for (const [name, wish] of Object.entries(wishes)) {
      if (wish.state !== "present") continue;
      let client = this.#clients.get(name);
      if (!client) {
        client = new Client(name, port, `password-${randomBytes(9).toString("hex")}`);
        const user = { username: "alice", password: client.password, admin: false };
        await this.#ask("POST", `/v1/tenants/${name}/users`, user, [201]);
        const shared = await client.enter(this.#witness?.user).catch((error: unknown) => {
          throw new Violation([`the user of the new tenant ${name} cannot enter: ${String(error)}`]);
        });
        if (shared !== undefined)
          await this.#witness?.enter(name, shared).catch((error: unknown) => {
            throw new Violation([`a user of another server cannot join a room of ${name}: ${String(error)}`]);
          });
        this.#clients.set(name, client);
      }
      client.start({ resting: wish.resting ?? false });
    }
  }

  /** What is wrong. Facts are gathered one after another, so they count only if placement did not change meanwhile. */
  async #findings(wishes: Wishes): Promise<string[]> {
    for (let look = 1; ; look++) {
      const before = placing(await this.#settle(wishes));
      const facts = await gatherFacts(this.#cluster, wishes, this.#clients, this.#sweep, this.#secrets);
      const findings = [...this.#exceeded, ...judge(wishes, facts, this.#limits)];
      const stable = placing(await this.#settle(wishes)) === before;
      if (findings.length === 0 || (stable && look >= PERSISTS) || look === LOOKS || facts.leaks.length > 0)
        return findings;
      // The process of a shard that was just removed may take a moment to end.
      await sleep(1_000);
    }
  }
}

function placing({ tenants, shards }: { tenants: TenantFacts[]; shards: ShardFacts[] }): string {
  return JSON.stringify([
    tenants.map(({ name, shard, epoch }) => [name, shard, epoch]),
    shards.map(({ name }) => name),
  ]);
}
