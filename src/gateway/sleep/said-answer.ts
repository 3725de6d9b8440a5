import type { Route } from "../../model/routes.ts";
import type { KeptAnswer } from "./answer.ts";
import type { Question } from "./known-answers.ts";

const HEAD = JSON.stringify(["content-type", "application/json", "access-control-allow-origin", "*"]);

/** What the controller says that a homeserver has said, which this gateway may never have seen awake. */
export function saidAnswer({ topic, key }: Question, { said }: Route): KeptAnswer | undefined {
  if (!said || (topic !== "keys" && topic !== "well-known")) return undefined;
  const path = key.replace(/\/$/, "");
  const text = Object.hasOwn(said, path) ? said[path] : undefined;
  return text === undefined ? undefined : { status: 200, head: HEAD, body: Buffer.from(text).toString("latin1") };
}
