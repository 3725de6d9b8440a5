import { createHmac } from "node:crypto";
import { request } from "undici";
import { z } from "zod";
import { UserError } from "../../model/errors.ts";
import { headersFor, type Listener } from "../shards/listener.ts";
import type { RegisterUserRequest } from "./cluster-service.ts";

const PATH = "/_synapse/admin/v1/register";
const TIMEOUT_MS = 30_000;

/** Registers a user through Synapse's shared-secret registration, on the tenant's own listener. */
export async function registerUser(
  listener: Listener,
  sharedSecret: string,
  user: RegisterUserRequest,
): Promise<{ userId: string }> {
  const { nonce } = z.object({ nonce: z.string() }).parse(await call(listener, "GET"));
  const { username, password, admin } = user;
  const mac = createHmac("sha1", sharedSecret);
  mac.update([nonce, username, password, admin ? "admin" : "notadmin"].join("\0"));
  const body = { nonce, username, password, admin, mac: mac.digest("hex") };
  const answer = z.object({ user_id: z.string() }).parse(await call(listener, "POST", body));
  return { userId: answer.user_id };
}

async function call(listener: Listener, method: "GET" | "POST", body?: unknown): Promise<unknown> {
  const { address, serverName } = listener;
  let status: number;
  let answer: unknown;
  try {
    const response = await request(`http://${address}${PATH}`, {
      method,
      headers: { ...headersFor(listener), "content-type": "application/json" },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    status = response.statusCode;
    answer = await response.body.json();
  } catch (error) {
    throw new UserError("Unavailable", `${serverName} did not answer; try again`, { cause: error });
  }
  if (status === 200) return answer;
  const problem = z.object({ errcode: z.string(), error: z.string() }).safeParse(answer);
  // Synapse has no such call where somebody else keeps the accounts.
  if (problem.data?.errcode === "M_UNRECOGNIZED")
    throw new UserError(
      "InvalidInput",
      `${serverName} makes no users itself: its accounts are kept by its authentication service ` +
        "(matrix_authentication_service in its homeserver.yaml); make the user there",
    );
  const words = problem.success ? `${problem.data.error} (${problem.data.errcode})` : `status ${status}`;
  throw new UserError(
    problem.data?.errcode === "M_USER_IN_USE" ? "AlreadyExists" : "InvalidInput",
    `${serverName} refuses the user: ${words}`,
  );
}
