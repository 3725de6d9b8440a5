import { z } from "zod";
import type { ChannelStanding, NotificationService, TestResult } from "../controller/service/notification-service.ts";
import { UserError } from "../model/errors.ts";
import { TOPICS, type Topic } from "../model/notification.ts";
import { failures, type Api } from "./api.ts";

const tags = ["cluster"];

const ChannelSchema = z
  .object({
    name: z.string(),
    kind: z.enum(["webhook", "mail"]),
    topics: z.array(z.enum(Object.keys(TOPICS) as [Topic, ...Topic[]])),
    failures: z.int().describe("Attempts in a row that failed."),
    problem: z.string().optional().describe("Why the last one failed."),
    lastSentAt: z.iso.datetime().optional().describe("Since the controller's start."),
  })
  .meta({ id: "NotificationChannel" }) satisfies z.ZodType<ChannelStanding>;

const ResultSchema = z
  .object({ name: z.string(), ok: z.boolean(), message: z.string() })
  .meta({ id: "NotificationTest" }) satisfies z.ZodType<TestResult>;

/** @param notifications absent where the platform sends none */
export function notificationRoutes(app: Api, notifications: NotificationService | undefined): void {
  const service = (): NotificationService => {
    if (notifications) return notifications;
    throw new UserError("Conflict", "this platform sends no notifications: docs/notifications.md says what does there");
  };

  app.get(
    "/v1/notifications",
    {
      schema: {
        operationId: "listNotificationChannels",
        summary: "How operators are told of events, and whether that works",
        tags,
        response: { 200: z.object({ items: z.array(ChannelSchema) }).describe("The channels."), ...failures(409) },
      },
    },
    async () => ({ items: service().channels() }),
  );

  app.post(
    "/v1/notifications/test",
    {
      schema: {
        operationId: "testNotifications",
        summary: "Sends a test by each channel, and waits for how that ends",
        tags,
        response: { 200: z.object({ items: z.array(ResultSchema) }).describe("How each ended."), ...failures(409) },
      },
    },
    async () => ({ items: await service().test() }),
  );
}
