import type { Topic } from "../../model/notification.ts";

/** What the controller offers about telling operators. */
export interface NotificationService {
  /** How each channel is. @throws UserError Conflict where there are none */
  channels(): ChannelStanding[];
  /** Sends a test to each channel now, and waits for how that ends. @throws UserError Conflict where there are none */
  test(): Promise<TestResult[]>;
}

export interface ChannelStanding {
  name: string;
  kind: "webhook" | "mail";
  topics: Topic[];
  /** Attempts in a row that failed, and why the last one did. */
  failures: number;
  problem?: string;
  lastSentAt?: string;
}

export interface TestResult {
  name: string;
  ok: boolean;
  /** How it ended, in words. */
  message: string;
}
