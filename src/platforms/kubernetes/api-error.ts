import { setTimeout as sleep } from "node:timers/promises";
import { ApiException } from "@kubernetes/client-node";
import { exponential } from "../../model/backoff.ts";
import { messageOf, UserError, type ErrorCode } from "../../model/errors.ts";

/** Whether the API server answered with this status. */
export function isStatus(error: unknown, status: number): boolean {
  return error instanceof ApiException && error.code === status;
}

/** Whether it may be gone the next time: no answer, too busy, or not ready; all but a refusal. */
export function mayPass(error: unknown): boolean {
  return !(error instanceof ApiException) || error.code === 429 || error.code >= 500;
}

const RETRIES = 3;
const FIRST_RETRY_MS = 200;
/** A busy API server may ask for more; the caller's own loop waits longer then. */
const LONGEST_RETRY_MS = 2_000;
const retryDelay = exponential(FIRST_RETRY_MS, LONGEST_RETRY_MS);

/**
 * Carries out a call again, a few times and for a few seconds at most, where the API server did not answer or was busy. It may have
 * carried out what it did not answer: a write that names a version is refused then, a creation finds its object there already.
 */
export async function retrying<T>(call: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await call();
    } catch (error) {
      const isTimeout = error instanceof Error && error.name === "TimeoutError";
      if (tries === RETRIES || isTimeout || error instanceof UserError || !mayPass(error)) throw error;
      await sleep(Math.min(retryAfterMs(error) ?? retryDelay(tries + 1), LONGEST_RETRY_MS));
    }
  }
}

function retryAfterMs(error: unknown): number | undefined {
  const seconds = error instanceof ApiException ? Number(error.headers["retry-after"]) : Number.NaN;
  return Number.isFinite(seconds) ? seconds * 1000 : undefined;
}

/** The API server's own words, which the client wraps in headers and JSON. */
export function wordsOf(error: unknown): string {
  // "fetch failed" says nothing; its cause says whether the server is away or its certificate is wrong.
  if (!(error instanceof ApiException)) {
    const { cause } = error instanceof Error ? error : {};
    return cause instanceof Error ? `${messageOf(error)}: ${messageOf(cause) || cause.name}` : messageOf(error);
  }
  const body: unknown = typeof error.body === "string" ? parse(error.body) : error.body;
  const message = typeof body === "object" && body !== null && "message" in body ? body.message : undefined;
  return typeof message === "string" ? message : `status ${error.code}`;
}

/** Carries out a call of the API. @throws UserError Unauthorized, InvalidInput, Conflict, Unavailable that says what was not possible, and why */
export async function attempt<T>(what: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw apiFailure(what, error);
  }
}

const CODES: Partial<Record<number, ErrorCode>> = {
  400: "InvalidInput",
  401: "Unauthorized",
  403: "Unauthorized",
  409: "Conflict",
  422: "InvalidInput",
};

/** What was not possible, and why, in words. */
export function apiFailure(what: string, error: unknown): UserError {
  if (error instanceof UserError) return error;
  const status = error instanceof ApiException ? error.code : 0;
  return new UserError(CODES[status] ?? "Unavailable", `cannot ${what}: the Kubernetes API says: ${wordsOf(error)}`, {
    cause: error,
  });
}

/** The same for what may be gone already. @returns undefined if it is */
export async function attemptIfThere<T>(what: string, call: () => Promise<T>): Promise<T | undefined> {
  return attempt(what, async () => {
    try {
      return await call();
    } catch (error) {
      if (isStatus(error, 404)) return undefined;
      throw error;
    }
  });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
