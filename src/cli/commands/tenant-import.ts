import { resolve } from "node:path";
import type { Command } from "commander";
import type { Job } from "../../model/backup.ts";
import type { OptionVerdict } from "../../model/import.ts";
import type { Client } from "../client.ts";
import { CliError, EXIT } from "../errors.ts";
import { isForPeople, show } from "../format.ts";
import { JOB_HAS, waitForJob } from "../jobs.ts";
import { timeoutOption, withClient, type WaitOptions } from "../options.ts";
import { print, table } from "../output.ts";
import { mediaIn, type MediaOptions } from "./media-place.ts";
import { tenantPath } from "./tenant-path.ts";

interface ImportOptions extends WaitOptions, MediaOptions {
  homeserverYaml?: string;
  archive?: string;
  database?: string;
  sqlite?: string;
  dump?: string;
  release?: string;
  fromRelease?: string;
  withoutRefused?: true;
  rehearse?: true;
}

export function addTenantImport(tenant: Command): void {
  tenant
    .command("import")
    .description("make a tenant of an existing Synapse that is on the controller's machine; it is only read")
    .argument("<name>", "name of the new tenant")
    .option("--homeserver-yaml <file>", "its configuration")
    .option("--archive <path>", "instead of all that: an archive of `tenant export`, a directory or a .tar")
    .option("--database <url>", "its database, such as postgres://USER@HOST/NAME (default: as in homeserver.yaml)")
    .option("--sqlite <file>", "its database, where that is SQLite")
    .option("--dump <file>", "a dump of its database, by pg_dump --format=custom")
    .option(
      "--media <place>",
      "its media: a directory, or the bucket of its S3 storage provider, s3://BUCKET/PREFIX or a YAML file that names it (default: media_store_path of homeserver.yaml)",
    )
    .option("--media-credentials <file>", "a YAML file with the accessKeyId and secretAccessKey of that bucket")
    .option("--media-endpoint <url>", "the S3 server of that bucket (default: AWS)")
    .option("--media-region <name>", "the region of that bucket (default: us-east-1)")
    .option("--release <version>", "the release that it is to run (default: the cluster's)")
    .option("--from-release <version>", "the release that it ran last, for SQLite (default: the one it is to run)")
    .option("--without-refused", "leave options behind that a tenant may not set")
    .option(
      "--rehearse",
      "try everything while the old server runs, use nothing of it, and tell how long the switch takes",
    )
    .addOption(timeoutOption().default(86_400_000, "24h"))
    .action((name: string, options: ImportOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { body, done } = await bodyOf(options);
        try {
          const job = await client.call<Job>("POST", `${tenantPath(name)}/import`, { body, has: JOB_HAS });
          const ended = await ofJob(client, job, options.timeout, isForPeople(output));
          show(output, ended, () => ended.message);
        } finally {
          await done();
        }
      }),
    );
}

/** Waits, and shows what becomes of the options, also where it fails. */
async function ofJob(client: Client, job: Job, timeout: number, forPeople: boolean): Promise<Job> {
  try {
    return await waitForJob(client, job, timeout);
  } finally {
    if (forPeople) {
      const now = await client.call<Job>("GET", `/v1/jobs/${job.id}`, { has: JOB_HAS }).catch(() => undefined);
      if (now?.options) print(pictureOf(now.options));
    }
  }
}

function pictureOf(options: OptionVerdict[]): string {
  const taken = options.filter(({ verdict }) => verdict === "taken").map(({ option }) => option);
  const rest = options.filter(({ verdict }) => verdict !== "taken");
  const rows = rest.map(({ option, verdict, why }) => [option, verdict, why]);
  return `${table(["OPTION", "VERDICT", "WHY"], rows)}\n(taken as they are: ${taken.join(", ") || "none"})`;
}

/** @returns what is asked for, and what to do at the end */
async function bodyOf(options: ImportOptions): Promise<{ body: unknown; done(): Promise<void> }> {
  const { archive, homeserverYaml, database, sqlite, dump, release, fromRelease } = options;
  const { withoutRefused = false, rehearse = false } = options;
  const common = { release, fromRelease, withoutRefused, rehearse };
  const databases = [
    ...(database === undefined ? [] : [{ url: database }]),
    ...(sqlite === undefined ? [] : [{ sqlite: resolve(sqlite) }]),
    ...(dump === undefined ? [] : [{ dump: resolve(dump) }]),
  ];
  if (databases.length > 1) throw new CliError(EXIT.usage, "give one of --database, --sqlite and --dump");
  if (archive !== undefined) {
    if (homeserverYaml !== undefined || options.media !== undefined || databases.length > 0)
      throw new CliError(EXIT.usage, "--archive has everything in it: give it without the other files");
    const { openArchive } = await import("../archive-files.ts");
    const { directory, done } = await openArchive(resolve(archive));
    const at = (path: string) => `${directory}/${path}`;
    const parts = { homeserverYaml: at("homeserver.yaml"), database: { dump: at("database.dump") } };
    return { body: { ...parts, media: at("media_store"), ...common }, done };
  }
  if (homeserverYaml === undefined) throw new CliError(EXIT.usage, "give --homeserver-yaml, or --archive");
  return {
    body: {
      homeserverYaml: resolve(homeserverYaml),
      database: databases[0],
      media: await mediaIn(options),
      ...common,
    },
    done: async () => {},
  };
}
