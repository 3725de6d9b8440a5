import type { Command } from "commander";
import type { TenantView } from "../../api/views.ts";
import { actOn, choose, takesTenants, type ChoiceOptions } from "../bulk.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { tenantDetails } from "../rows.ts";
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
    takesTenants(tenant.command(verb.name))
      .description(verb.description)
      .option("--wait", verb.wait)
      .addOption(timeoutOption())
      .action((given: string[], options: WaitOptions & ChoiceOptions, command: Command) =>
        withClient(command, async (client, { output }) => {
          const waited = options.wait === true;
          await actOn(await choose(client, given, options, verb.name), output, {
            begin: (name) => client.call<TenantView>("POST", `${tenantPath(name)}/${verb.name}`, { has: HAS }),
            finish: async (name, asked) => {
              if (!waited) return asked;
              const { generation } = asked.metadata;
              return verb.name === "suspend"
                ? waitUntilSuspended(client, name, options.timeout)
                : waitUntilRunning(client, name, generation, options.timeout);
            },
            value: tenantDetails,
            words: (name) => verb.words(name, waited),
          });
        }),
      );
}
