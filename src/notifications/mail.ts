import { readFile } from "node:fs/promises";
import { createTransport } from "nodemailer";
import { messageOf } from "../model/errors.ts";
import type { MailConfig, Notice, Notification } from "../model/notification.ts";
import type { NotificationChannel } from "../ports/notifications.ts";

const CONNECT_MS = 10_000;
/** Between two words of the server. */
const SILENCE_MS = 20_000;
const MOST_IN_SUBJECT = 3;

export function mailChannel(config: MailConfig): NotificationChannel {
  return {
    rule: config,
    kind: "mail",
    async send(notification) {
      const { host, port, security, username, passwordFile } = config.server;
      const auth =
        username === undefined || passwordFile === undefined
          ? {}
          : { auth: { user: username, pass: (await readFile(passwordFile, "utf8")).trim() } };
      const transport = createTransport({
        host,
        port,
        secure: security === "tls",
        requireTLS: security === "starttls",
        ignoreTLS: security === "none",
        connectionTimeout: CONNECT_MS,
        greetingTimeout: CONNECT_MS,
        socketTimeout: SILENCE_MS,
        disableFileAccess: true,
        disableUrlAccess: true,
        ...auth,
      });
      try {
        await transport.sendMail({
          from: config.from,
          to: config.to,
          subject: subjectOf(notification),
          text: textOf(notification),
          // The same where it is sent once more: a mailbox shows it once.
          messageId: `<${notification.id}@synapse-shards.invalid>`,
          date: notification.time,
          headers: { "Auto-Submitted": "auto-generated" },
        });
      } catch (error) {
        throw new Error(`the mail server ${host}:${port} does not take it: ${messageOf(error)}`, { cause: error });
      } finally {
        transport.close();
      }
    },
  };
}

export function subjectOf({ notices, more, test }: Notification): string {
  if (test) return "[synapse-shards] test";
  const names = notices.slice(0, MOST_IN_SUBJECT).map(({ reason, object }) => `${reason} ${object}`);
  const rest = notices.length + more - names.length;
  return `[synapse-shards] ${names.join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
}

export function textOf({ notices, more, missed, test, time }: Notification): string {
  if (test) return `This is a test of notifications, sent at ${time}.\n`;
  const lines = notices.map(textOfNotice);
  if (more > 0) lines.push(`… and ${more} more, which the command "synapse-shards events" shows.`);
  if (missed > 0) lines.push(`${missed} events were forgotten before they could be told.`);
  return `${lines.join("\n\n")}\n`;
}

function textOfNotice({ type, reason, object, message, count, first, last }: Notice): string {
  const often = count === 1 ? last : `${count} times from ${first} to ${last}`;
  return `${type} ${reason}: ${object}\n${message}\n(${often})`;
}
