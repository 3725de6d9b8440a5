import type { Command } from "commander";
import type { ChannelStanding, TestResult } from "../../controller/service/notification-service.ts";
import { CliError, EXIT } from "../errors.ts";
import { show, showList } from "../format.ts";
import { withClient } from "../options.ts";
import { age, table } from "../output.ts";

/** list, test. */
export function addNotifications(program: Command): void {
  const notifications = program.command("notifications").description("how operators are told of events");

  notifications
    .command("list")
    .alias("ls")
    .description("list the channels, and whether they work")
    .action((_options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { items } = await client.call<{ items: ChannelStanding[] }>("GET", "/v1/notifications", {
          has: ["items"],
        });
        showList(output, items, "There are no channels.", () =>
          table(
            ["CHANNEL", "KIND", "TOPICS", "LAST SENT", "PROBLEM"],
            items.map(({ name, kind, topics, lastSentAt, problem }) => [
              name,
              kind,
              topics.join(","),
              lastSentAt === undefined ? "-" : `${age(lastSentAt)} ago`,
              problem ?? "",
            ]),
          ),
        );
      }),
    );

  notifications
    .command("test")
    .description("send a test by each channel now")
    .action((_options: object, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { items } = await client.call<{ items: TestResult[] }>("POST", "/v1/notifications/test", {
          has: ["items"],
        });
        show(output, items, () => items.map(({ name, message }) => `${name}: ${message}`).join("\n"));
        const failed = items.filter(({ ok }) => !ok).map(({ name }) => name);
        if (failed.length > 0) throw new CliError(EXIT.failed, `the test by ${failed.join(", ")} failed`);
      }),
    );
}
