import { readFileSync } from "node:fs";
import { z } from "zod";
import type { Clock } from "../../model/clock.ts";
import { messageOf } from "../../model/errors.ts";
import type { PrometheusConfig } from "../../model/history-source.ts";
import { RANGES, rounded, windowOf, type History, type Range } from "../../model/history.ts";
import { textWithin } from "../../model/bounded-text.ts";
import { queriesOf } from "./prometheus-queries.ts";

/** A person waits for the plots; Prometheus is told to give up as well. */
const TIMEOUT_MS = 10_000;
/** As often as there is something new, at most. */
const FRESH_MS = 30_000;
/** One that is away is not waited for by everybody who looks at the plots. */
const AWAY_MS = 30_000;
/** Of all queries together; a plot needs up to 17. */
const AT_ONCE = 4;
/** An answer for 400 steps takes 12 KiB. */
const MOST_BYTES = 1024 * 1024;
/** Ranges of the cluster, and of the shards that are looked at. */
const MOST_KEPT = 100;

const AnswerSchema = z.object({
  status: z.literal("success"),
  data: z.object({
    resultType: z.literal("matrix"),
    result: z.array(z.object({ values: z.array(z.tuple([z.number(), z.string()])) })).max(1),
  }),
});

export interface PrometheusParts {
  config: PrometheusConfig;
  clock: Pick<Clock, "now">;
  maxTenantsPerShard: () => number;
  /** For tests. */
  timeoutMs?: number;
}

class NothingKnown extends Error {}

interface Kept {
  at: number;
  answer: Promise<History>;
}

/** The history of a cluster as its Prometheus has it. */
export class PrometheusHistory {
  readonly #parts: PrometheusParts;
  readonly #kept = new Map<string, Kept>();
  #away: { until: number; why: string } | undefined;

  constructor(parts: PrometheusParts) {
    this.#parts = parts;
  }

  /** @throws Error with the reason, in words, where it is away, answers something else, or knows nothing of the cluster */
  read(range: Range, shard?: string): Promise<History> {
    const now = this.#parts.clock.now();
    if (this.#away && this.#away.until > now) return Promise.reject(new Error(this.#away.why));
    const key = `${range}/${shard ?? ""}`;
    const kept = this.#kept.get(key);
    if (kept && now - kept.at < FRESH_MS) return kept.answer;
    const answer = this.#ask(range, now, shard);
    this.#kept.delete(key);
    this.#kept.set(key, { at: now, answer });
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= MOST_KEPT) break;
      this.#kept.delete(oldest);
    }
    answer.catch((error: unknown) => {
      this.#kept.delete(key);
      // It may know others, and the cluster.
      if (error instanceof NothingKnown && shard !== undefined) return;
      this.#away = { until: this.#parts.clock.now() + AWAY_MS, why: messageOf(error) };
    });
    return answer;
  }

  async #ask(range: Range, now: number, shard?: string): Promise<History> {
    const { config, maxTenantsPerShard } = this.#parts;
    const { step } = RANGES[range];
    const { from, to } = windowOf(range, now);
    const stepSeconds = step / 1000;
    const asked = queriesOf({
      stepSeconds,
      labels: config.labels,
      ...(shard === undefined ? {} : { shard }),
      maxTenantsPerShard: maxTenantsPerShard(),
    });
    const queue = asked.entries();
    const found: History["series"] = [];
    const failed = new AbortController();
    const stop = AbortSignal.any([AbortSignal.timeout(this.#parts.timeoutMs ?? TIMEOUT_MS), failed.signal]);
    const work = async (): Promise<void> => {
      for (const [, { series, query }] of queue) {
        const values = await this.#series(query, { from, to, step, now }, stop);
        if (values.some((value) => value !== null)) found.push({ name: series, values });
      }
    };
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, work));
    } catch (error) {
      failed.abort();
      throw error;
    }
    if (found.length === 0)
      throw new NothingKnown(
        `it has no series of this ${shard === undefined ? "cluster" : "shard"}: check history.prometheus.labels, and what it scrapes`,
      );
    const series = found.toSorted((a, b) => (a.name < b.name ? -1 : 1));
    return { from: new Date(from).toISOString(), stepSeconds, series, source: "prometheus" };
  }

  /** A value of each step; what is evaluated at the end of a step is of that step. */
  async #series(
    query: string,
    { from, to, step, now }: { from: number; to: number; step: number; now: number },
    signal: AbortSignal,
  ): Promise<(number | null)[]> {
    const url = new URL(this.#parts.config.url);
    url.pathname = `${url.pathname.replace(/\/+$/, "")}/api/v1/query_range`;
    const seconds = (ms: number) => String(ms / 1000);
    const parameters = { query, start: seconds(from + step), end: seconds(to), step: seconds(step), timeout: "10s" };
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    const text = await this.#get(url, signal);
    const read = AnswerSchema.safeParse(parsed(text));
    if (!read.success) throw new Error("it answers something else than a Prometheus does");
    const values = Array.from({ length: (to - from) / step }, (): number | null => null);
    for (const [at, value] of read.data.data.result[0]?.values ?? []) {
      const index = Math.round((at * 1000 - from) / step) - 1;
      const number = Number(value);
      // The step that runs has no end yet; what is told of it is of now.
      if (index >= 0 && index < values.length && from + index * step <= now && Number.isFinite(number))
        values[index] = rounded(Math.max(0, number));
    }
    return values;
  }

  async #get(url: URL, signal: AbortSignal): Promise<string> {
    const { tokenFile } = this.#parts.config;
    const token = tokenFile === undefined ? undefined : firstLine(tokenFile);
    const headers = {
      Accept: "application/json",
      ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
    };
    let response: Response;
    try {
      response = await fetch(url, { headers, signal, redirect: "manual" });
    } catch (error) {
      const why = signal.aborted ? "it does not answer in time" : `it cannot be reached (${causeOf(error)})`;
      throw new Error(why, { cause: error });
    }
    if (response.status !== 200) {
      await response.body?.cancel().catch(() => {});
      throw new Error(`it answers with ${response.status}`);
    }
    return bounded(response, signal);
  }
}

/** Of the configuration, for the recorder. */
export function plotsFrom(
  { prometheus }: { prometheus?: PrometheusConfig | undefined },
  clock: Pick<Clock, "now">,
  maxTenantsPerShard: () => number,
): { elsewhere?: PrometheusHistory } {
  if (!prometheus) return {};
  return { elsewhere: new PrometheusHistory({ config: prometheus, clock, maxTenantsPerShard }) };
}

async function bounded(response: Response, signal: AbortSignal): Promise<string> {
  if (!response.body) return "";
  try {
    return await textWithin(response.body, MOST_BYTES, "it answers with more than the plots can have");
  } catch (error) {
    throw signal.aborted ? new Error("it does not answer in time", { cause: error }) : error;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function firstLine(file: string): string {
  try {
    return readFileSync(file, "utf8").split("\n", 1)[0]!.trim();
  } catch (error) {
    throw new Error(`history.prometheus.tokenFile cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** Of what `fetch` throws, what helps. */
function causeOf(error: unknown): string {
  const { cause } = error as { cause?: { code?: string } };
  return cause?.code ?? messageOf(cause ?? error);
}
