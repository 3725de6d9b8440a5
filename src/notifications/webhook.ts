import { readFile } from "node:fs/promises";
import { Webhook } from "standardwebhooks";
import { messageOf } from "../model/errors.ts";
import type { Notification, WebhookConfig } from "../model/notification.ts";
import type { NotificationChannel } from "../ports/notifications.ts";

/** For a receiver that only notes it down. */
const ANSWER_WITHIN_MS = 10_000;
const SHORTEST_SECRET = 24;

/** Signed as Standard Webhooks has it: id, time and body, with HMAC-SHA256. */
export function webhookChannel(config: WebhookConfig, withinMs = ANSWER_WITHIN_MS): NotificationChannel {
  return {
    rule: config,
    kind: "webhook",
    async send(notification) {
      const body = JSON.stringify(payloadOf(notification));
      const signer = await signerIn(config.secretFile);
      const now = new Date();
      const headers = {
        "content-type": "application/json",
        "user-agent": "synapse-shards",
        "webhook-id": notification.id,
        "webhook-timestamp": String(Math.floor(now.getTime() / 1000)),
        "webhook-signature": signer.sign(notification.id, now, body),
      };
      const signal = AbortSignal.timeout(withinMs);
      let status: number;
      try {
        // Another address than the one that was given would get what is signed for it.
        const answer = await fetch(config.url, { method: "POST", headers, body, redirect: "manual", signal });
        ({ status } = answer);
        await answer.body?.cancel();
      } catch (error) {
        if (signal.aborted) throw new Error(`it does not answer within ${withinMs / 1000} s`, { cause: error });
        throw new Error(`it cannot be reached: ${messageOf((error as Error).cause ?? error)}`, { cause: error });
      }
      if (status < 200 || status > 299) throw new Error(`it answers with ${status}`);
    },
  };
}

function payloadOf({ id, time, ...data }: Notification): object {
  return { type: data.test ? "synapse-shards.test" : "synapse-shards.notification", id, timestamp: time, data };
}

async function signerIn(file: string): Promise<Webhook> {
  let secret: string;
  try {
    secret = (await readFile(file, "utf8")).trim();
  } catch (error) {
    throw new Error(`its secretFile cannot be read: ${messageOf(error)}`, { cause: error });
  }
  if (secret.length < SHORTEST_SECRET)
    throw new Error(`the secret in ${file} is shorter than ${SHORTEST_SECRET} characters`);
  try {
    return secret.startsWith("whsec_") ? new Webhook(secret) : new Webhook(secret, { format: "raw" });
  } catch (error) {
    throw new Error(`the secret in ${file} is not whsec_ and Base64`, { cause: error });
  }
}
