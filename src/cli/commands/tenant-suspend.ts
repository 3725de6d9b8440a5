import type { Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import { forEach } from "../each.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { isForPeople, show } from "../format.ts";
import { print } from "../output.ts";
import { tenantDetails } from "../rows.ts";
import { namesOf, selectorOption } from "../selecting.ts";
import { waitUntilRunning, waitUntilSuspended } from "../wait.ts";
import { HAS, tenantPath } from "./tenant-path.ts";

interface Verb {
  name: "suspend" | "resume";
  description: string;
  wait: string;
  words(name: string, waited: boolean): string;
}

const VERBS: Verb[] = [
  {
    name: "suspend",
    description: "suspend tenants: they run nowhere, clients are told so and stay logged in, data and keys stay",
    wait: "wait until they run nowhere",
    words: (name, waited) => `tenant ${name} ${waited ? "is suspended" : "is being suspended"}`,
  },
  {
    name: "resume",
    description: "let suspended tenants run again",
    wait: "wait until they run",
    words: (name, waited) => `tenant ${name} ${waited ? "runs again" : "is being started again"}`,
  },
];

/** suspend, resume. */
export function addSuspend(tenant: Command): void {
  for (const verb of VERBS)
    tenant
      .command(verb.name)
      .description(verb.description)
      .argument("[name...]", "names of the tenants")
      .addOption(selectorOption())
      .option("--wait", verb.wait)
      .addOption(timeoutOption())
      .action((given: string[], options: WaitOptions & { selector?: string }, command: Command) =>
        withClient(command, async (client, { output }) => {
          const names = await namesOf(client, given, options.selector);
          const waited = options.wait === true;
          await forEach(names, {
            begin: (name) => client.call<TenantView>("POST", `${tenantPath(name)}/${verb.name}`, { has: HAS }),
            finish: async (name, asked) => {
              if (!waited) return asked;
              const { generation } = asked.metadata;
              return verb.name === "suspend"
                ? waitUntilSuspended(client, name, options.timeout)
                : waitUntilRunning(client, name, generation, options.timeout);
            },
            report: (done) => {
              if (isForPeople(output)) for (const { metadata } of done) print(verb.words(metadata.name, waited));
              else show(output, done.map(tenantDetails), () => "");
            },
          });
        }),
      );
}
