import type { Command } from "commander";
import { actOn, choose } from "../bulk.ts";
import { EXIT } from "../errors.ts";
import { checkOf, checkWords, dnsOfTenant, dnsWords, waitUntilReachable } from "../onboarding.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { show } from "../format.ts";
import { selectorOption } from "../selecting.ts";

/** Each makes the controller ask around. */
const CHECKS_AT_ONCE = 1;

/** check, dns. */
export function addCheck(tenant: Command): void {
  tenant
    .command("check")
    .description(
      "look at tenants as the world sees them: DNS, delegation, certificates, clients' and servers' APIs, keys",
    )
    .argument("[name...]", "names of the tenants")
    .addOption(selectorOption())
    .option("--wait", "check again until nothing is wrong")
    .addOption(timeoutOption())
    .action((given: string[], options: WaitOptions & { selector?: string }, command: Command) =>
      withClient(command, async (client, { output }) => {
        await actOn(await choose(client, given, options), output, {
          atOnce: CHECKS_AT_ONCE,
          begin: async () => {},
          finish: async (name) => {
            const { wait, timeout } = options;
            const report = wait ? await waitUntilReachable(client, name, timeout) : await checkOf(client, name);
            if (report.result === "error") process.exitCode = EXIT.failed;
            return report;
          },
          value: (report) => report,
          words: (_name, report) => checkWords(report),
        });
      }),
    );

  tenant
    .command("dns")
    .description("show the DNS records and files by which clients and other servers find a tenant")
    .argument("<name>", "name of the tenant")
    .action((name: string, _options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const dns = await dnsOfTenant(client, name);
        show(output, dns, () => dnsWords(dns));
      }),
    );
}
