import type { CheckReport, Finding } from "../model/tenant-check.ts";
import type { TenantDns } from "../model/tenant-dns.ts";
import type { Client } from "./client.ts";
import { tenantPath } from "./commands/tenant-path.ts";
import { note, paint, plain } from "./output.ts";
import { waitFor } from "./wait.ts";

/** DNS takes its time; a check more often tells nothing more. */
const CHECK_EVERY_MS = 5_000;
/** Nobody looks at these while they wait for the others. */
const IN_THE_WAY = new Set(["error"]);

export function dnsOfTenant(client: Client, name: string): Promise<TenantDns> {
  return client.call<TenantDns>("GET", `${tenantPath(name)}/dns`, { has: ["records"] });
}

export function checkOf(client: Client, name: string): Promise<CheckReport> {
  return client.call<CheckReport>("GET", `${tenantPath(name)}/check`, { has: ["findings"] });
}

/** What has to be published, for people. */
export function dnsWords({ records, wellKnown, srv, host, serverName }: TenantDns): string {
  const width = Math.max(...records.map(({ name }) => name.length)) + 1;
  const lines = ["DNS records:"];
  for (const [index, { name, type, value, purpose }] of records.entries()) {
    // Of several addresses of one name, the first says what they are for.
    if (records[index - 1]?.name !== name) lines.push(`  ; ${purpose}`);
    lines.push(`  ${`${name}.`.padEnd(width)}  3600  IN  ${type.padEnd(4)}  ${value || "<address of the gateway>"}`);
  }
  if (wellKnown.length > 0) {
    lines.push(
      "",
      `Where a web site has ${serverName}, it serves these, or redirects them to the same path at https://${host}:`,
    );
    for (const { url, content } of wellKnown) lines.push(`  ${url}`, `    ${JSON.stringify(content)}`);
    lines.push("  The one for clients needs the header Access-Control-Allow-Origin: *");
  }
  if (srv !== null)
    lines.push(
      "",
      "Or, for other servers alone, and with a certificate for the server name at the gateway:",
      `  ${srv}`,
    );
  return plainLines(lines);
}

/** A report, for people: what is wrong comes with what to do. */
export function checkWords({ findings }: CheckReport): string {
  const width = Math.max(0, ...findings.map(({ code }) => code.length)) + 2;
  return plainLines(
    findings.flatMap(({ severity, code, message, remedy }) => [
      `${mark(severity)}  ${code.padEnd(width)}${message}`,
      ...(remedy === undefined || severity === "ok" ? [] : [`${" ".repeat(9 + width)}→ ${remedy}`]),
    ]),
  );
}

function mark(severity: Finding["severity"]): string {
  return severity.padEnd(7);
}

/** Names come from elsewhere, and are shown on a terminal. */
function plainLines(lines: readonly string[]): string {
  return lines.map((line) => paint(plain(line))).join("\n");
}

/** Checks until nothing is in the way of clients and other servers, and says what changes meanwhile. @throws CliError timeout */
export async function waitUntilReachable(client: Client, name: string, timeoutMs: number): Promise<CheckReport> {
  let said = "";
  let report: CheckReport | undefined;
  let next = 0;
  return waitFor<CheckReport>(`tenant ${name} as the world sees it`, timeoutMs, async () => {
    if (report === undefined || Date.now() >= next) {
      report = await checkOf(client, name);
      next = Date.now() + CHECK_EVERY_MS;
    }
    const wrong = report.findings.filter(({ severity }) => IN_THE_WAY.has(severity));
    if (wrong.length === 0) return { done: report };
    const words = wrong.map(({ code, message }) => `${code}: ${message}`).join("; ");
    if (words !== said) note(checkWords({ ...report, findings: wrong }));
    said = words;
    return { waiting: words };
  });
}
