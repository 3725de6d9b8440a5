import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { stringify } from "yaml";
import type { TenantView } from "../src/api/views.ts";
import { DEFAULT_RELEASE, ensureSynapse } from "../src/platforms/local/toolchain/toolchain.ts";
import { freePort } from "../src/platforms/local/up/ports.ts";
import { onEnd } from "./lib/cleanup.ts";
import { DENDRITE, ensureGoTool, findGo } from "../bin/go-tools.ts";
import { BenchCluster, STILL } from "./lib/cluster.ts";
import { PASSWORD } from "./lib/matrix.ts";
import { DendritePeer } from "./lib/dendrite-peer.ts";
import type { Peer } from "./lib/peer.ts";
import type { Bench, BenchOptions, BenchResult } from "./lib/result.ts";
import { SynapsePeer } from "./lib/synapse-peer.ts";

/** Of each tenant: it is moved, and put to sleep, in each. */
const FULL = { rounds: 125 };
const QUICK = { rounds: 2 };

const TENANTS = ["clinic-a", "clinic-b", "clinic-c", "clinic-d"];
const SYNAPSES = ["peer-a", "peer-b"];
const DENDRITE_NAME = "peer-c";
/** One that Dendrite knows too. */
const ROOM_VERSION = "10";
/** Of each peer, to each tenant. */
const SEND_EVERY_MS = 2_000;
const LOOK_EVERY_MS = 500;
const STEP_MS = 120_000;
/** Longer than what counts as an absence. */
const AWAY_MS = 75_000;
/** The greetings are spread over a minute; the machine may be slow. */
const BACK_MS = 240_000;

export const bench: Bench = {
  name: "peers",
  title:
    "Other homeservers while tenants move and sleep, and after an absence: two Synapses and a Dendrite that send all the time",
  async run({ quick, log }: BenchOptions): Promise<BenchResult> {
    const { rounds } = quick ? QUICK : FULL;
    const { python } = await ensureSynapse(DEFAULT_RELEASE);
    log("building Dendrite, if it is not there yet");
    const dendrite = ensureGoTool(DENDRITE, await findGo({ onProgress: log }));
    const ports = await Promise.all([...SYNAPSES, DENDRITE_NAME].map(() => freePort("127.0.0.1")));
    log("bringing up a whole cluster, two plain Synapses and a Dendrite");
    const cluster = await BenchCluster.up({
      // Two shards stay, so that no move waits for one.
      maxTenantsPerShard: TENANTS.length,
      maxShardsPerSynapseImageTag: 2,
      avgShardsLoadRedistributionThreshold: 0,
      consolidateAfterSeconds: 86_400,
      // Four tenants that are disturbed all the time take much of a busy machine.
      ...STILL,
      tenantPolicy: {
        allowedOptions: ["rc_message", "rc_invites", "federation_verify_certificates"],
        allowedDestinations: ports.map((port) => `127.0.0.0/8:${port}`),
      },
    });
    try {
      const directory = cluster.dataDir;
      const peers: Peer[] = await Promise.all([
        ...SYNAPSES.map((name, n) => SynapsePeer.start({ python, name, port: ports[n]!, directory })),
        DendritePeer.start({
          program: dendrite,
          reaches: TENANTS.map((tenant) => `${tenant}.localhost`),
          name: DENDRITE_NAME,
          port: ports.at(-1)!,
          directory,
        }),
      ]);
      for (const peer of peers) onEnd(() => peer.close());
      const world = await World.make(cluster, peers);
      const seen = await world.disturb(rounds, log);
      log(`away for ${AWAY_MS / 1000} s`);
      const absence = await world.absence();
      return report(seen, absence, await world.lost(), world.sent.length);
    } finally {
      await cluster.close();
    }
  },
};

interface Disturbed {
  moves: number;
  sleeps: number;
  backedOff: string[];
}

interface Absence {
  /** How many peers had backed off from how many tenants, taken together. */
  backedOff: number;
  /** After the start, until nobody backed off any more; undefined: not within the time. */
  clearedAfterSeconds: number | undefined;
}

class World {
  readonly #cluster: BenchCluster;
  readonly #peers: Peer[];
  readonly #rooms: { tenant: string; peer: Peer; room: string; token: string }[] = [];
  readonly sent: { tenant: string; room: string; text: string }[] = [];
  #sending = new AbortController();
  #senders: Promise<void>[] = [];

  private constructor(cluster: BenchCluster, peers: Peer[]) {
    this.#cluster = cluster;
    this.#peers = peers;
  }

  static async make(cluster: BenchCluster, peers: Peer[]): Promise<World> {
    const world = new World(cluster, peers);
    const { https } = JSON.parse(await readFile(join(cluster.dataDir, "ports.json"), "utf8")) as { https: number };
    const often = { per_second: 10_000, burst_count: 10_000 };
    const overrides = join(cluster.dataDir, "overrides.yaml");
    const rc_invites = { per_room: often, per_user: often, per_issuer: often };
    await writeFile(overrides, stringify({ rc_message: often, rc_invites, federation_verify_certificates: false }));
    for (const tenant of TENANTS) {
      const name = ["--server-name", `${tenant}.localhost:${https}`];
      await cluster.cli("tenant", "create", tenant, "--wait", "--config", overrides, ...name);
      await cluster.cli("tenant", "register-user", tenant, "--user", "alice", "--password", PASSWORD);
      const token = await world.#logIn(tenant);
      for (const peer of peers) {
        const { room_id: room } = await world.#ask<{ room_id: string }>(tenant, token, "POST", "/createRoom", {
          preset: "private_chat",
          room_version: ROOM_VERSION,
          invite: [peer.user],
        });
        await until("the peer joins", async () => {
          await peer.join(room);
          return true;
        });
        world.#rooms.push({ tenant, peer, room, token });
      }
    }
    return world;
  }

  /** Moves tenants and puts them to sleep while peers send; what they send wakes them. */
  async disturb(rounds: number, log: (line: string) => void): Promise<Disturbed> {
    const backedOff = new Set<string>();
    const done: Disturbed = { moves: 0, sleeps: 0, backedOff: [] };
    this.#send();
    const looking = this.#look((peer, destination) => backedOff.add(`${peer} from ${destination ?? "a tenant"}`));
    const disturbing = TENANTS.map(async (tenant) => {
      for (let round = 1; round <= rounds; round++) {
        if (await this.#move(tenant)) done.moves++;
        if (await this.#sleep(tenant)) done.sleeps++;
        if (tenant === TENANTS[0] && round % Math.ceil(rounds / 10) === 0)
          log(`round ${round} of ${rounds}: ${done.moves} moves, ${done.sleeps} sleeps, ${backedOff.size} backed off`);
      }
    });
    await Promise.all(disturbing);
    await this.#quiet();
    await looking();
    return { ...done, backedOff: [...backedOff] };
  }

  /** All is down, as after a failure of the machine, while peers send. */
  async absence(): Promise<Absence> {
    this.#send();
    await this.#cluster.restart(AWAY_MS);
    const begun = performance.now();
    const count = async (): Promise<number> =>
      (await Promise.all(this.#peers.map(async (peer) => peer.backOffs()))).flat().length;
    const backedOff = await count();
    await this.#quiet();
    while ((await count()) > 0) {
      if (performance.now() - begun > BACK_MS) return { backedOff, clearedAfterSeconds: undefined };
      await sleep(LOOK_EVERY_MS);
    }
    return { backedOff, clearedAfterSeconds: (performance.now() - begun) / 1000 };
  }

  /** Messages that peers sent and that tenants never got. */
  async lost(): Promise<number> {
    let missing: string[] = [];
    await until("all arrives", async () => {
      const found = new Set<string>();
      for (const { tenant, room, token } of this.#rooms)
        for (const text of await this.#messages(tenant, token, room)) found.add(text);
      missing = this.sent.map(({ text }) => text).filter((text) => !found.has(text));
      return missing.length === 0;
    }).catch(() => {});
    return missing.length;
  }

  #send(): void {
    this.#sending = new AbortController();
    const { signal } = this.#sending;
    this.#senders = this.#rooms.map(async ({ tenant, peer, room }) => {
      while (!signal.aborted) {
        this.sent.push({ tenant, room, text: await peer.send(room) });
        await sleep(SEND_EVERY_MS);
      }
    });
  }

  async #quiet(): Promise<void> {
    this.#sending.abort();
    await Promise.all(this.#senders);
  }

  #look(found: (peer: string, destination: string | undefined) => void): () => Promise<void> {
    let ending = false;
    const looking = (async () => {
      while (!ending) {
        for (const peer of this.#peers)
          for (const { destination } of await peer.backOffs()) found(peer.name, destination);
        await sleep(LOOK_EVERY_MS);
      }
    })();
    return async () => {
      ending = true;
      await looking;
    };
  }

  async #move(tenant: string): Promise<boolean> {
    await this.#awake(tenant);
    const { status, json } = await this.#cluster.ask("POST", `/v1/tenants/${tenant}/move`);
    if (status !== 202) return false;
    const { id } = json as { id: string };
    await until(`${tenant} moves`, async () => (await this.#tenant(tenant)).status.lastMove?.id === id);
    return true;
  }

  /** Asks until it owes nothing to anybody; its next message wakes it. */
  async #sleep(tenant: string): Promise<boolean> {
    for (const deadline = Date.now() + STEP_MS; Date.now() < deadline; await sleep(100)) {
      const { status } = await this.#cluster.ask("POST", `/v1/tenants/${tenant}/sleep`);
      if (status !== 202) continue;
      let slept = false;
      await until(`${tenant} sleeps and wakes`, async () => {
        const { phase } = (await this.#tenant(tenant)).status;
        slept ||= phase === "Asleep" || phase === "Pending" || phase === "Starting";
        return phase === "Running";
      });
      if (slept) return true;
    }
    return false;
  }

  #awake(tenant: string): Promise<void> {
    return until(`${tenant} runs`, async () => (await this.#tenant(tenant)).status.phase === "Running");
  }

  #tenant(name: string): Promise<TenantView> {
    return this.#cluster.call<TenantView>("GET", `/v1/tenants/${name}`);
  }

  async #logIn(tenant: string): Promise<string> {
    const login = { type: "m.login.password", identifier: { type: "m.id.user", user: "alice" }, password: PASSWORD };
    return (await this.#ask<{ access_token: string }>(tenant, "", "POST", "/login", login)).access_token;
  }

  async #messages(tenant: string, token: string, room: string): Promise<string[]> {
    const texts: string[] = [];
    for (let from = ""; ;) {
      const path = `/rooms/${encodeURIComponent(room)}/messages?dir=b&limit=500${from && `&from=${from}`}`;
      const page = await this.#ask<{ end?: string; chunk: { content: { body?: unknown } }[] }>(
        tenant,
        token,
        "GET",
        path,
      );
      for (const { content } of page.chunk) if (typeof content.body === "string") texts.push(content.body);
      if (page.end === undefined || page.chunk.length === 0) return texts;
      from = page.end;
    }
  }

  async #ask<T>(tenant: string, token: string, method: "GET" | "POST", path: string, body?: object): Promise<T> {
    const { http } = JSON.parse(await readFile(join(this.#cluster.dataDir, "ports.json"), "utf8")) as { http: number };
    const answer = await request(`http://127.0.0.1:${http}/_matrix/client/v3${path}`, {
      method,
      headers: {
        host: `${tenant}.localhost`,
        "content-type": "application/json",
        ...(token ? { authorization: `Bearer ${token}` } : {}),
      },
      body: body ? JSON.stringify(body) : null,
      signal: AbortSignal.timeout(STEP_MS),
    });
    const text = await answer.body.text();
    if (answer.statusCode !== 200) throw new Error(`${tenant} answered ${path} with ${answer.statusCode}: ${text}`);
    return JSON.parse(text) as T;
  }
}

async function until(what: string, is: () => Promise<boolean>): Promise<void> {
  let last: unknown;
  for (const deadline = Date.now() + STEP_MS; Date.now() < deadline; await sleep(50)) {
    try {
      if (await is()) return;
      last = undefined;
    } catch (error) {
      last = error;
    }
  }
  throw new Error(`not within ${STEP_MS / 1000} s: ${what}`, { cause: last });
}

function report(seen: Disturbed, absence: Absence, lost: number, sent: number): BenchResult {
  const { moves, sleeps, backedOff } = seen;
  const none = { at: "most" as const, value: 0 };
  const of = `two Synapses and a Dendrite, in ${moves} moves and ${sleeps} sleeps, ${sent} messages to ${TENANTS.length} tenants`;
  return {
    name: "peers",
    title: bench.title,
    figures: [
      { what: "servers that backed off", value: backedOff.length, unit: "", target: none, note: of },
      { what: "messages of other servers that were lost", value: lost, unit: "", target: none, note: of },
      {
        what: "back-offs after an absence of 75 s",
        value: absence.backedOff,
        unit: "",
        note: `of ${(SYNAPSES.length + 1) * TENANTS.length}`,
      },
      {
        what: "until nobody backed off any more, after that absence",
        value: absence.clearedAfterSeconds ?? Number.POSITIVE_INFINITY,
        unit: "s",
        target: { at: "most", value: 90 },
      },
    ],
    plots: [],
    raw: { ...seen, absence, lost, sent },
  };
}
