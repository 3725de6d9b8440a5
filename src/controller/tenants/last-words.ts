import { request } from "undici";
import { timeText } from "../../model/clock.ts";
import { isPublicAnswer, MOST_ANSWER_BYTES, PUBLIC_PATHS } from "../../model/public-answers.ts";
import type { PublicAnswers, Tenant, TenantStatus } from "../../model/tenant.ts";
import { textWithin } from "../../model/bounded-text.ts";
import type { ControllerContext } from "../context.ts";
import { headersFor, type Listener } from "../shards/listener.ts";

/** It is about to be stopped, and does not wait for long for this. */
const TIMEOUT_MS = 2_000;

/** Asks a homeserver what anybody may. What it does not answer is left out. */
export async function askPublicly(listener: Listener): Promise<PublicAnswers> {
  const found = await Promise.all(
    PUBLIC_PATHS.map(async (path) => {
      const answer = await ask(listener, path).catch(() => undefined);
      return answer && isPublicAnswer(path, listener.serverName, answer) ? [[path, answer.body]] : [];
    }),
  );
  return Object.fromEntries(found.flat()) as PublicAnswers;
}

/**
 * What a tenant that runs says of itself, for the time when it runs nowhere.
 * @param maxAgeMs what was kept of the same configuration up to that long ago is good enough
 * @returns undefined where it says nothing, or need not be asked: what was kept before stays
 */
export async function lastWordsOf(
  context: ControllerContext,
  { spec, status }: Tenant,
  maxAgeMs = 0,
): Promise<TenantStatus["lastWords"]> {
  const { clock, feed } = context;
  const { address, shard, lastWords, inEffect } = status;
  if (address === undefined) return undefined;
  const isNew = lastWords?.hash === inEffect?.hash && lastWords !== undefined && clock.age(lastWords.at) < maxAgeMs;
  if (isNew) return undefined;
  const answers = await context.asks({ address, serverName: spec.serverName, secret: feed.secretOf(shard) });
  if (Object.keys(answers).length === 0) return undefined;
  return { at: timeText(clock.now()), ...(inEffect ? { hash: inEffect.hash } : {}), answers };
}

async function ask(listener: Listener, path: string): Promise<{ status: number; body: string }> {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const { statusCode, body } = await request(`http://${listener.address}${path}`, {
    headers: headersFor(listener),
    signal,
  });
  const tooLong = `the answer to ${path} is longer than ${MOST_ANSWER_BYTES} bytes`;
  return { status: statusCode, body: await textWithin(body, MOST_ANSWER_BYTES, tooLong) };
}
