import type { Command } from "commander";
import type { DeletedTenantView, TenantView } from "../../api/views.ts";
import type { PurgeProof } from "../../model/deleted-tenant.ts";
import type { Client } from "../client.ts";
import { actOn } from "../bulk.ts";
import { confirm } from "../confirm.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { show, showList, type Format } from "../format.ts";
import { age, counted, table } from "../output.ts";
import { tenantDetails } from "../rows.ts";
import { waitUntilRunning } from "../wait.ts";
import { HAS } from "./tenant-path.ts";

const PATH = "/v1/deleted-tenants";
const pathOf = (name: string) => `${PATH}/${encodeURIComponent(name)}`;

/** undelete, purge, purges. */
export function addDeleted(tenant: Command): void {
  tenant
    .command("undelete")
    .description("have a deleted tenant back, with its database, media and keys (tenant list --deleted shows which)")
    .argument("<name>", "name of the tenant")
    .option("--wait", "wait until it runs")
    .addOption(timeoutOption())
    .action((name: string, options: WaitOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const back = await client.call<TenantView>("POST", `${pathOf(name)}/undelete`, { has: HAS });
        const { generation } = back.metadata;
        const now = options.wait ? await waitUntilRunning(client, name, generation, options.timeout) : back;
        show(output, tenantDetails(now), () => `tenant ${name} ${options.wait ? "runs again" : "is back"}`);
      }),
    );

  tenant
    .command("purge")
    .description("remove what is kept of deleted tenants for good, and print what remains: a proof")
    .argument("<name...>", "names of deleted tenants")
    .option("-y, --yes", "do not ask; needed where there is no terminal")
    .action((names: string[], { yes }: { yes?: boolean }, command: Command) =>
      withClient(command, async (client, { output }) => {
        const question = `Remove all messages, users and media of the deleted ${names.join(", ")}, for good?`;
        await confirm({ question, otherwise: "nothing was removed", yes });
        await actOn({ names, isSingle: false }, output, {
          begin: (name) => client.call<PurgeProof>("DELETE", pathOf(name), { has: ["name", "sha256"] }),
          finish: (_name, proof) => Promise.resolve(proof),
          value: (proof) => proof,
          words: (name, proof) => `removed what was kept of ${name}: ${removedWords(proof)}`,
        });
      }),
    );

  tenant
    .command("purges")
    .description(
      "list the proofs of tenants whose data was removed: what, when and why, with hashes (-o json: in full)",
    )
    .action((_options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { items } = await client.call<{ items: PurgeProof[] }>("GET", "/v1/purges", { has: ["items"] });
        showList(output, items, "No data was removed yet.", () =>
          table(
            ["NAME", "SERVER NAME", "DELETED", "PURGED", "REASON", "REMOVED", "SHA256"],
            items.map((proof) => [
              proof.name,
              proof.serverName,
              proof.deletedAt,
              proof.purgedAt,
              proof.reason,
              removedWords(proof),
              proof.sha256.slice(0, 12),
            ]),
          ),
        );
      }),
    );
}

export async function printDeleted(client: Client, output: Format): Promise<void> {
  const { items } = await client.call<{ items: DeletedTenantView[] }>("GET", PATH, { has: ["items"] });
  showList(output, items, "No deleted tenants are kept.", () =>
    table(
      ["NAME", "SERVER NAME", "DELETED", "KEPT UNTIL"],
      items.map(({ name, spec, deletedAt, keptUntil, purge }) => [
        name,
        spec.serverName,
        `${age(deletedAt)} ago`,
        purge ? "being removed" : keptUntil,
      ]),
    ),
  );
}

function removedWords({ removed: { database, media, signingKey, left } }: PurgeProof): string {
  const words = [
    database ? `database ${database.name}${database.bytes === undefined ? "" : ` (${database.bytes} bytes)`}` : "",
    media ? `${counted(media.files, "media file")} (${media.bytes} bytes)` : "",
    signingKey ? "keys" : "",
  ].filter((word) => word !== "");
  const removed = words.length === 0 ? (left ? "nothing" : "nothing was left") : words.join(", ");
  return left ? `${removed}; left to its owner: ${left.join(", ")}` : removed;
}
