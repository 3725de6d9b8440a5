import type { Command } from "commander";
import { EXIT } from "../errors.ts";
import { checkOf, checkWords, dnsOfTenant, dnsWords, waitUntilReachable } from "../onboarding.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { show } from "../format.ts";

/** check, dns. */
export function addCheck(tenant: Command): void {
  tenant
    .command("check")
    .description(
      "look at a tenant as the world sees it: DNS, delegation, certificates, clients' and servers' APIs, keys",
    )
    .argument("<name>", "name of the tenant")
    .option("--wait", "check again until nothing is wrong")
    .addOption(timeoutOption())
    .action((name: string, options: WaitOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const report = options.wait
          ? await waitUntilReachable(client, name, options.timeout)
          : await checkOf(client, name);
        show(output, report, () => checkWords(report));
        if (report.result === "error") process.exitCode = EXIT.failed;
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
