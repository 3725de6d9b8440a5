import pc from "picocolors";
import { quoted } from "../../../model/shell.ts";
import { DEMO_ADMIN, type DemoTenant } from "./demo.ts";

export interface SummaryFacts {
  apiUrl: string;
  httpUrl: string;
  httpsUrl: string;
  dataDir: string;
  shardsDir: string;
  caFile: string;
  release: string;
  /** Another release, to try an upgrade with. */
  otherVersion: string;
  /** How the CLI is called for this data directory. */
  command: string;
  demo?: {
    tenants: DemoTenant[];
    passwordFile: string;
    /** Left out where the output may be kept, in a file or a log. */ password?: string;
  };
}

/** What `up` says when all runs. */
export function summary(facts: SummaryFacts): string {
  const { command, demo } = facts;
  const lines = ["", pc.bold(pc.green("The cluster is up."))];
  if (demo && demo.tenants.length > 0) lines.push("", ...tenantLines(demo.tenants), "", ...loginLines(demo));
  lines.push(
    "",
    pc.bold("Try next, in another terminal"),
    ...aligned(demo && demo.tenants.length > 0 ? demoCommands(facts, demo.tenants) : firstCommands(command)),
  );
  lines.push(
    "",
    ...aligned([
      ["Console", `${facts.apiUrl}/, sign in with the token in ${facts.dataDir}/api-token`],
      ["Clients", `${facts.httpUrl} and ${facts.httpsUrl}; the name in Host says which tenant`],
      ["Certificates", `made by ${facts.caFile}; trust it, or put your own into ${facts.dataDir}/certificates`],
      ["API", `${facts.apiUrl}, token in ${facts.dataDir}/api-token`],
      ["Data", facts.dataDir],
      ["Logs", `${facts.dataDir}/*.log, ${facts.shardsDir}/*/shard.log`],
    ]),
    "",
    `Press Ctrl-C to stop. Everything is there again at the next start.`,
    "",
  );
  return lines.join("\n");
}

function tenantLines(tenants: readonly DemoTenant[]): string[] {
  return aligned(
    tenants.map(({ name, url, problem }) => [
      name,
      problem === undefined ? pc.cyan(url) : pc.red(`does not run: ${problem}`),
    ]),
  );
}

function loginLines({ passwordFile, password }: { passwordFile: string; password?: string }): string[] {
  const secret =
    password === undefined
      ? `the password in ${passwordFile}`
      : `the password ${pc.bold(password)} (kept in ${passwordFile})`;
  return [
    `Log in to any of them as ${pc.bold(DEMO_ADMIN)} with ${secret}.`,
    "Any Matrix client will do: in Element (https://app.element.io), choose Edit at the homeserver and enter a URL from above.",
  ];
}

function firstCommands(command: string): string[][] {
  return [
    [`${command} tenant create clinic-a --wait`, "a first tenant"],
    [`${command} tenant list`, "where tenants are"],
    [`${command} status`, "the state of the cluster, and what is wrong"],
    [`${command} --help`, "everything else"],
  ];
}

function demoCommands(facts: SummaryFacts, tenants: readonly DemoTenant[]): string[][] {
  const { command, shardsDir, release, otherVersion } = facts;
  const [first, second] = tenants;
  const shard = tenants.find((tenant) => tenant.shard !== undefined)?.shard;
  return [
    [`${command} tenant list`, "where tenants are"],
    [`curl ${quoted(`${first?.url}/_matrix/client/versions`)}`, "through the gateway, as a client does"],
    [`${command} tenant move ${first?.name}`, "to another shard; nobody notices"],
    ...(shard
      ? [[`kill -9 $(cat ${quoted(`${shardsDir}/${shard}/pid`)})`, "a crash; its tenants come back automatically"]]
      : []),
    [`${command} tenant update ${second?.name} --release ${otherVersion}`, "to another Synapse release"],
    [`${command} tenant update ${second?.name} --release ${release}`, "and back"],
    [`${command} events --follow`, "what the controller does, and why"],
    [`${command} status`, "the state of the cluster, and what is wrong"],
  ];
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const width = Math.max(...rows.map(([left = ""]) => left.length));
  return rows.map(([left = "", right = ""]) => `  ${left.padEnd(width)}  ${right}`);
}
