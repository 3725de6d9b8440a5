import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import { responseHeaders } from "../headers.ts";

/** An answer of a homeserver's that may be given again. */
export interface KeptAnswer {
  status: number;
  /** Flat name, value, … as one text, so that equal ones are kept once. */
  head: string;
  /** Its bytes, one a character. */
  body: string;
}

/** Said of one answer, not of what it says; the length is set when it is sent. */
const OF_THE_MOMENT = new Set(["date", "content-length", "age", "x-request-id", "request-id", "server-timing"]);
/** What an answer must not have to be given to somebody else, or again. */
const PERSONAL = ["set-cookie", "content-encoding", "content-range", "www-authenticate"];

/** @returns undefined for answers that were made for one client only */
export function keptAnswer(status: number, headers: IncomingHttpHeaders, body: string): KeptAnswer | undefined {
  if (PERSONAL.some((name) => headers[name] !== undefined)) return undefined;
  const flat = responseHeaders(headers);
  const kept: string[] = [];
  for (let i = 0; i < flat.length; i += 2) if (!OF_THE_MOMENT.has(flat[i]!)) kept.push(flat[i]!, flat[i + 1]!);
  return { status, head: JSON.stringify(kept), body };
}

/** Nothing of the response may have been sent. */
export function sendKept(response: ServerResponse, { status, head, body }: KeptAnswer, close: boolean): void {
  const headers = JSON.parse(head) as string[];
  if (close) headers.push("connection", "close");
  if (status !== 204) headers.push("content-length", String(body.length));
  response.writeHead(status, headers);
  response.end(body, "latin1");
}
