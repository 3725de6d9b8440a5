import { Random } from "./random.ts";

export const VERSIONS = ["1.157.2", "1.163.2"] as const;

/** What is done to the cluster. A shard is named by a tenant that it hosts, because its own name depends on timing. */
export type Action =
  | { type: "create"; tenant: string; version: string; uploadMegabytes: number }
  | { type: "delete"; tenant: string; purge: boolean }
  | { type: "move"; tenant: string }
  | { type: "drain"; shardOf: string }
  | { type: "upgrade"; tenant: string; version: string }
  | { type: "configure"; tenant: string; uploadMegabytes: number }
  /** Its user sends nothing any more, and only listens; what is to be sent later is left with its homeserver. */
  | { type: "rest"; tenant: string; laterSeconds?: number }
  /** Its user sends again. */
  | { type: "use"; tenant: string }
  | { type: "sleep"; who: string }
  | { type: "wake"; who: string }
  | { type: "killShard"; shardOf: string }
  | { type: "pauseShard"; shardOf: string; seconds: number }
  | { type: "kill"; part: "controller" | "gateway" | "up" | "postgres" }
  | { type: "restart" };

/** What a tenant should be in the end; `kept`: deleted, with its data kept. */
export interface Wish {
  state: "absent" | "present" | "kept";
  version: string;
  /** A setting that can be seen from outside: the largest upload. */
  uploadMegabytes: number;
  /** Nobody uses it: whether it is awake is its own affair. */
  resting?: boolean;
}
export type Wishes = Readonly<Record<string, Wish>>;

export interface Step {
  number: number;
  /** Milliseconds between the beginnings of two actions. */
  actions: { afterMs: number; action: Action }[];
  /** After the step. */
  wishes: Wishes;
  /** Nothing in this step excuses a failed request. */
  graceful: boolean;
}

export interface GeneratorOptions {
  seed: number;
  /** How many names of tenants there are to choose from. */
  tenants: number;
}

type Weights = Record<Action["type"], number>;

const WEIGHTS: Weights = {
  create: 16,
  delete: 9,
  move: 22,
  drain: 8,
  upgrade: 14,
  configure: 10,
  rest: 18,
  use: 12,
  sleep: 12,
  wake: 5,
  killShard: 16,
  pauseShard: 10,
  kill: 24,
  restart: 2,
};
/** What makes a step rough. Some steps have none of these, and must then have no failed request. */
const ROUGH = ["killShard", "pauseShard", "kill", "restart"] as const;
const GENTLE_SHARE = 0.3;
const MOST_ACTIONS = 4;
/** Some sleep until then because they are asked to, others because it is more than a minute away. */
const LATER_SECONDS = [8, 20, 90];
/** Two simultaneous actions meet in every stage of a move, which takes some hundred milliseconds. */
const DELAYS_MS = [0, 20, 80, 150, 300, 600, 1200, 2500];

/** The steps of a run. They depend only on the options, not on what happens. */
export function* steps(options: GeneratorOptions): Generator<Step, never, undefined> {
  const random = new Random(options.seed);
  let wishes: Wishes = Object.fromEntries(
    Array.from({ length: options.tenants }, (_, n) => [
      `t-${n}`,
      { state: "absent", version: VERSIONS[1], uploadMegabytes: 1 } satisfies Wish,
    ]),
  );
  for (let number = 1; ; number++) {
    const gentle = random.next() < GENTLE_SHARE;
    const touched = new Set<string>();
    const actions: Step["actions"] = [];
    const wanted = number === 1 ? Math.ceil(options.tenants / 2) : random.whole(1, MOST_ACTIONS);
    for (let n = 0; n < wanted; n++) {
      const action = choose(random, wishes, touched, { gentle, first: number === 1 });
      if (!action) continue;
      wishes = after(wishes, action);
      actions.push({ afterMs: random.pick(DELAYS_MS), action });
    }
    if (actions.length === 0) continue;
    yield { number, actions, wishes, graceful: actions.every(({ action }) => isGraceful(action)) };
  }
}

/** The wishes after the action. */
export function after(wishes: Wishes, action: Action): Wishes {
  const change = (tenant: string, changes: Partial<Wish>): Wishes => {
    const wish = wishes[tenant];
    if (!wish) throw new Error(`there is no tenant ${tenant} in the pool`);
    return { ...wishes, [tenant]: { ...wish, ...changes } };
  };
  switch (action.type) {
    case "create":
      return change(action.tenant, {
        state: "present",
        version: action.version,
        uploadMegabytes: action.uploadMegabytes,
        resting: false,
      });
    case "delete":
      return change(action.tenant, { state: action.purge ? "absent" : "kept", resting: false });
    case "rest":
    case "use":
      return change(action.tenant, { resting: action.type === "rest" });
    case "upgrade":
      return change(action.tenant, { version: action.version });
    case "configure":
      return change(action.tenant, { uploadMegabytes: action.uploadMegabytes });
    default:
      return wishes;
  }
}

export function isGraceful(action: Action): boolean {
  return !(ROUGH as readonly string[]).includes(action.type);
}

function choose(
  random: Random,
  wishes: Wishes,
  touched: Set<string>,
  { gentle, first }: { gentle: boolean; first: boolean },
): Action | undefined {
  const names = Object.keys(wishes).filter((name) => !touched.has(name));
  const present = names.filter((name) => wishes[name]?.state === "present");
  const missing = names.filter((name) => wishes[name]?.state !== "present");
  const resting = present.filter((name) => wishes[name]?.resting);
  const used = present.filter((name) => !wishes[name]?.resting);
  const standing = Object.values(wishes).filter((wish) => wish.state === "present").length;
  const weights = { ...WEIGHTS };
  if (gentle) for (const type of ROUGH) weights[type] = 0;
  if (missing.length === 0) weights.create = 0;
  // Few tenants make few collisions.
  if (standing * 2 < Object.keys(wishes).length) weights.create *= 3;
  if (standing < 3) weights.delete = 0;
  if (used.length === 0) weights.rest = 0;
  if (resting.length === 0) weights.use = 0;
  const ofTenants = [
    "delete",
    "move",
    "upgrade",
    "configure",
    "sleep",
    "wake",
    "drain",
    "killShard",
    "pauseShard",
  ] as const;
  if (present.length === 0) for (const type of ofTenants) weights[type] = 0;
  const type = first ? "create" : weightedOrNone(random, weights);
  if (type === undefined) return undefined;
  const one = (from: string[]) => {
    const name = random.pick(from);
    touched.add(name);
    return name;
  };
  switch (type) {
    case "create":
      return { type, tenant: one(missing), version: random.pick(VERSIONS), uploadMegabytes: random.whole(1, 99) };
    case "delete":
      return { type, tenant: one(present), purge: random.next() < 0.5 };
    case "move":
      return { type, tenant: one(present) };
    case "upgrade": {
      const tenant = one(present);
      const version = VERSIONS.find((other) => other !== wishes[tenant]?.version) ?? VERSIONS[0];
      return { type, tenant, version };
    }
    case "configure":
      return { type, tenant: one(present), uploadMegabytes: random.whole(1, 99) };
    case "rest":
      return random.next() < 0.5
        ? { type, tenant: one(used), laterSeconds: random.pick(LATER_SECONDS) }
        : { type, tenant: one(used) };
    case "use":
      return { type, tenant: one(resting) };
    case "sleep":
    case "wake":
      return { type, who: random.pick(present) };
    // These are meant to meet tenants that are moving.
    case "drain":
    case "killShard":
      return { type, shardOf: random.pick(present) };
    case "pauseShard":
      return { type, shardOf: random.pick(present), seconds: random.pick([1, 3, 8, 12]) };
    case "kill":
      return {
        type,
        part: random.weighted({ controller: 6, gateway: 3, up: 2, postgres: 1 }),
      };
    case "restart":
      return { type };
  }
}

function weightedOrNone(random: Random, weights: Weights): Action["type"] | undefined {
  return Object.values(weights).some((weight) => weight > 0) ? random.weighted(weights) : undefined;
}

/** One action in a few words. */
export function describe(action: Action): string {
  switch (action.type) {
    case "create":
      return `create ${action.tenant} ${action.version}`;
    case "delete":
      return `delete ${action.tenant}${action.purge ? " --purge" : ""}`;
    case "move":
      return `move ${action.tenant}`;
    case "drain":
      return `drain the shard of ${action.shardOf}`;
    case "upgrade":
      return `update ${action.tenant} to ${action.version}`;
    case "configure":
      return `configure ${action.tenant} (uploads of ${action.uploadMegabytes} MB)`;
    case "rest":
      return `let ${action.tenant} rest${action.laterSeconds === undefined ? "" : `, with a message to be sent in ${action.laterSeconds} s`}`;
    case "use":
      return `use ${action.tenant} again`;
    case "sleep":
    case "wake":
      return `${action.type} ${action.who}`;
    case "killShard":
      return `kill -9 the shard of ${action.shardOf}`;
    case "pauseShard":
      return `stop the shard of ${action.shardOf} for ${action.seconds} s`;
    case "kill":
      return `kill -9 ${action.part}`;
    case "restart":
      return "restart with Ctrl-C";
  }
}
