import type { Command } from "commander";
import type { CertificateView } from "../../model/certificates.ts";
import { show, showList } from "../format.ts";
import { withClient } from "../options.ts";
import { table } from "../output.ts";

/** list, renew. */
export function addCertificates(program: Command): void {
  const certificates = program
    .command("certificates")
    .alias("certificate")
    .description("certificates that the cluster gets for tenants' names");

  certificates
    .command("list")
    .alias("ls")
    .description("list certificates, and say why one is missing or was not renewed")
    .action((_options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { items } = await client.call<{ items: CertificateView[] }>("GET", "/v1/certificates", {
          has: ["items"],
        });
        showList(output, items, "No certificates found.", () => certificateTable(items));
      }),
    );

  certificates
    .command("renew")
    .description("order one again now, before its time, and whatever failed before")
    .argument("<name>", "the host, or *.DOMAIN")
    .action((name: string, _options, command: Command) =>
      withClient(command, async (client, { output }) => {
        const path = `/v1/certificates/${encodeURIComponent(name)}/renew`;
        const view = await client.call<CertificateView>("POST", path, { has: ["state"] });
        show(output, view, () => `the certificate for ${name} is being ordered; certificates list shows how it goes`);
      }),
    );
}

function certificateTable(items: CertificateView[]): string {
  const day = (time: string | null) => time?.slice(0, 10) ?? "";
  return table(
    ["NAME", "TENANT", "STATE", "ENDS", "RENEWED", "REASON"],
    items.map(({ name, tenant, state, notAfter, renewAt, problem, message }) => [
      name,
      tenant ?? "",
      state,
      day(notAfter),
      day(renewAt),
      problem === null ? "" : `${problem}: ${message}`,
    ]),
  );
}
