import { ApiException } from "@kubernetes/client-node";
import { messageOf, UserError } from "../model/errors.ts";

/** Whether the API server answered with this status. */
export function isStatus(error: unknown, status: number): boolean {
  return error instanceof ApiException && error.code === status;
}

/** The API server's own words, which the client wraps in headers and JSON. */
export function wordsOf(error: unknown): string {
  if (!(error instanceof ApiException)) return messageOf(error);
  const body: unknown = typeof error.body === "string" ? parse(error.body) : error.body;
  const message = typeof body === "object" && body !== null && "message" in body ? body.message : undefined;
  return typeof message === "string" ? message : `status ${error.code}`;
}

/** Carries out a call of the API. @throws UserError Unauthorized, Unavailable that says what was not possible, and why */
export async function attempt<T>(what: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw apiFailure(what, error);
  }
}

/** What was not possible, and why, in words. */
export function apiFailure(what: string, error: unknown): UserError {
  if (error instanceof UserError) return error;
  const code = isStatus(error, 401) || isStatus(error, 403) ? "Unauthorized" : "Unavailable";
  return new UserError(code, `cannot ${what}: the Kubernetes API says: ${wordsOf(error)}`, { cause: error });
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
