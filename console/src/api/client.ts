import createClient from "openapi-fetch";
import type { components, paths } from "./schema.gen.ts";

export type Schemas = components["schemas"];
export type Tenant = Schemas["Tenant"];
export type Shard = Schemas["Shard"];
export type ClusterStatus = Schemas["ClusterStatus"];
export type ClusterEvent = Schemas["Event"];

/** What the API answered instead of what was asked for; its words are for people. */
export class ApiFailure extends Error {
  readonly status: number;
  readonly code: string;
  readonly details: string[];
  constructor(status: number, code: string, message: string, details: unknown) {
    super(message);
    this.name = "ApiFailure";
    this.status = status;
    this.code = code;
    this.details = Array.isArray(details) ? details.map(String) : [];
  }
}

export const api = createClient<paths>({ baseUrl: "/", fetch: reachable });

/** The answer's data. @throws ApiFailure */
export async function dataOf<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await call;
  if (response.ok) return data as T;
  throw failureOf(response.status, error);
}

export function failureOf(status: number, body: unknown): ApiFailure {
  const said = (body as { error?: { code?: string; message?: string; details?: unknown } } | undefined)?.error;
  const { code = "Unknown", message = `the controller answered with ${status}`, details } = said ?? {};
  return new ApiFailure(status, code, message, details);
}

async function reachable(request: Request): Promise<Response> {
  try {
    return await fetch(request);
  } catch (error) {
    if (request.signal.aborted) throw error;
    throw new ApiFailure(0, "Unreachable", "the controller does not answer", undefined);
  }
}

/** A sentence as it begins one. */
export function sentence(text: string): string {
  return text === "" ? text : text[0]!.toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
