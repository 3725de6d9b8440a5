import { stringify } from "yaml";
import { baseHomeserverConfig } from "../../model/homeserver-config.ts";
import type { TenantCounts } from "../../model/backup.ts";
import { UserError } from "../../model/errors.ts";
import type { ImportRequest, MediaPlace, OptionVerdict } from "../../model/import.ts";
import { newTenantStatus, type Tenant, type TenantSpec } from "../../model/tenant.ts";
import type { TenantSecretData } from "../../model/tenant-secrets.ts";
import type { CopyFacts, DatabaseCopies, TenantMediaFiles } from "../../ports/backups.ts";
import type { DatabaseLogin } from "../../ports/databases.ts";
import type { ImportSource } from "../../ports/imports.ts";
import type { Work } from "../backups/back-up.ts";
import { takeIntoUse } from "../backups/restore.ts";
import type { ControllerContext } from "../context.ts";
import type { ClusterService } from "../service/cluster-service.ts";
import { holdNames, type HeldNames } from "../tenants/holding-names.ts";
import type { TenantNames } from "../tenants/reserved-names.ts";
import { storageFor } from "../tenants/storage-names.ts";
import { copyMedia } from "./media.ts";
import { translate, type Translated } from "./translate.ts";
import { mebibytes } from "../../model/bytes.ts";

export interface ImportMeans {
  copies: DatabaseCopies;
  media: TenantMediaFiles;
  source: ImportSource;
}

export interface ImportParts extends ImportMeans {
  context: ControllerContext;
  service: Pick<ClusterService, "createTenant">;
}

type Request = ImportRequest & { release: string };
type From = { sqlite: string } | { dump: string } | { login: DatabaseLogin };

/** By it a database is known that an interrupted import has put in place. */
const MARK = "an import";

/**
 * Makes a tenant of a homeserver. Nothing of the tenant is there before the database and all media are. Interrupted, it leaves the media that it has
 * copied, and is begun again.
 * @param tell gets what becomes of each option, as soon as that is known @returns how it went, in words
 */
export async function importHomeserver(
  parts: ImportParts,
  name: string,
  request: Request,
  work: Work,
  tell: (options: OptionVerdict[]) => void,
): Promise<string> {
  const { context, source } = parts;
  const { release } = request;
  work.say("homeserver.yaml is read");
  const translated = await translate(source, request.homeserverYaml);
  const { serverName, secrets } = translated;
  const config = await review(parts, name, translated, request, tell);
  const from = databaseFrom(request, translated);
  const mediaPlaces = await placesOfMedia(source, request.media, translated.mediaPath);
  const spec: TenantSpec = { serverName, release, config, reclaimPolicy: "Retain" };
  const storage = () => storageFor(context, name, serverName);
  return holdNames(context, { name, spec, by: `the import of ${name}`, storage }, (held) =>
    takeOver(parts, held, { ...request, config, secrets, from, mediaPlaces }, work),
  );
}

interface Found {
  /** The tenant's part of homeserver.yaml. */
  config: string;
  secrets: TenantSecretData;
  from: From;
  mediaPlaces: MediaPlace[];
}

async function takeOver(
  parts: ImportParts,
  { names, confirm }: HeldNames,
  { config, secrets, from, mediaPlaces, ...request }: Request & Found,
  work: Work,
): Promise<string> {
  const { context, copies, media, source } = parts;
  const { name, serverName, storage } = names;
  const { rehearse, release } = request;
  await refuseKept(parts, names);
  const startedAt = work.now();
  const password = secrets.databasePassword;
  const { facts, expected, remarks } = await fillDatabase(
    parts,
    storage,
    { password, from, serverName, ...request },
    work,
  );
  if (expected) refuseUnlike(expected, facts);
  const databaseSeconds = (work.now() - startedAt) / 1_000;
  const copied = await copyMedia({ media, source }, storage, mediaPlaces, work);
  const found = `${words(facts.counts)}${remarks.map((remark) => `; ${remark}`).join("")}`;
  if (rehearse) {
    await copies.forget(storage);
    await context.databases.drop(storage);
    const mediaStartedAt = work.now();
    await copyMedia({ media, source }, storage, mediaPlaces, work);
    const seconds = Math.ceil(databaseSeconds + (work.now() - mediaStartedAt) / 1_000);
    return `the rehearsal went well, and nothing is in use of it: ${found}; ${copied.files} media files are copied. The switch takes about ${seconds} s (database ${Math.ceil(databaseSeconds)} s) and the start`;
  }
  await confirm();
  await media.admitStaged(storage);
  await copies.exchange(storage, { password, epoch: 0, backup: MARK });
  await takeIntoUse(parts, { name, serverName, config, release }, { names, secrets }, work);
  return `${name} runs as ${serverName}: ${found}`;
}

/**
 * Of a server with a bucket, its directory as well, where there is one: it has what was not uploaded yet, or came before the bucket.
 * @throws UserError InvalidInput
 */
async function placesOfMedia(
  source: ImportSource,
  asked: MediaPlace | undefined,
  directory: string | undefined,
): Promise<MediaPlace[]> {
  const place = asked ?? directory;
  if (place === undefined || !(await source.mayHaveMedia(place)))
    throw new UserError("InvalidInput", `there is no directory of media ${String(place ?? "")}: give --media`);
  const hasMore = typeof place !== "string" && directory !== undefined && (await source.mayHaveMedia(directory));
  return hasMore ? [place, directory] : [place];
}

/** @returns the tenant's part of homeserver.yaml @throws UserError InvalidConfig where it cannot be imported so */
async function review(
  { context, source }: ImportParts,
  name: string,
  { serverName, secrets, options, changed }: Translated,
  { release, withoutRefused }: Request,
  tell: (options: OptionVerdict[]) => void,
): Promise<string> {
  const tenant: Tenant = {
    kind: "Tenant",
    metadata: { name, creationTimestamp: "", resourceVersion: "", generation: 1 },
    spec: { serverName, release, config: "", reclaimPolicy: "Retain" },
    status: newTenantStatus(),
  };
  const where = context.environment(tenant);
  const found = await source.review(release, {
    serverName,
    epoch: 1,
    // Synapse makes the directory, and nothing here reads media.
    base: { ...baseHomeserverConfig(tenant, secrets, where), media_store_path: "media" },
    overrides: stringify(options, { version: "1.1", lineWidth: 0 }),
    signingKey: secrets.signingKey,
    policy: where.policy,
  });
  const renamed = new Set(["synapse_shards", ...changed.map(({ option }) => option)]);
  tell([
    ...changed,
    ...found.refused.map(({ option, why, owner }): OptionVerdict => {
      const verdict = owner === "refused" ? "refused" : "changed";
      return { option, verdict, why };
    }),
    ...found.warnings.map((why): OptionVerdict => ({ option: why.split(" ")[2] ?? "", verdict: "unknown", why })),
    ...found.taken
      .filter((option) => !renamed.has(option))
      .map((option): OptionVerdict => ({ option, verdict: "taken", why: "as it is" })),
  ]);
  const refused = found.refused.filter(({ owner }) => owner === "refused").map(({ option }) => option);
  if (refused.length > 0 && !withoutRefused)
    throw new UserError(
      "InvalidConfig",
      `a tenant may not set ${refused.join(", ")}: take it out, or leave it behind with --without-refused`,
    );
  if (found.problem !== null)
    throw new UserError("InvalidConfig", `Synapse ${release} does not take the configuration: ${found.problem}`);
  return found.config;
}

function databaseFrom({ database }: Request, translated: Translated): From {
  if (!database) {
    if (translated.database) return translated.database;
    throw new UserError(
      "InvalidInput",
      "homeserver.yaml names no database that can be read: give --database, --sqlite or --dump",
    );
  }
  if (!("url" in database)) return database;
  const url = new URL(database.url);
  const known = translated.database && "login" in translated.database ? translated.database.login : undefined;
  const given = decodeURIComponent(url.password);
  return {
    login: {
      host: url.hostname.replaceAll(/^\[|\]$/g, ""),
      port: Number(url.port || 5432),
      user: decodeURIComponent(url.username) || (known?.user ?? ""),
      password: given || (known?.password ?? ""),
      database: decodeURIComponent(url.pathname.slice(1)),
      sslMode: url.searchParams.get("sslmode") ?? "prefer",
    },
  };
}

/** @throws UserError AlreadyExists */
async function refuseKept({ context, copies }: ImportParts, { name, serverName, storage }: TenantNames): Promise<void> {
  const { databases, deletions } = context;
  const deleted = (await deletions?.records.list())?.find(
    (kept) => kept.name === name || kept.spec.serverName === serverName,
  );
  const { hasDatabase, stranded } = await databases.keptData(storage);
  const isOurs = hasDatabase && !deleted && (await copies.inPlace(storage)) === MARK;
  if (deleted || stranded || (hasDatabase && !isOurs))
    throw new UserError(
      "AlreadyExists",
      `data of an earlier tenant ${deleted?.name ?? name} is kept: bring it back with undelete, or remove it with purge`,
    );
  // Put in place by an import that was interrupted before there was a tenant; the old server may have gone on since.
  if (isOurs) await databases.drop(storage);
}

interface Filled {
  facts: CopyFacts;
  remarks: string[];
  /** What the old database had at the same moment. */
  expected?: TenantCounts;
}

async function fillDatabase(
  { copies, source }: ImportParts,
  storage: string,
  {
    from,
    password,
    serverName,
    rehearse,
    release,
    fromRelease,
  }: Request & { from: From; password: string; serverName: string },
  work: Work,
): Promise<Filled> {
  const { say, signal } = work;
  const options = { password, backup: MARK };
  const filled = async (fill: (into: DatabaseLogin) => Promise<void>, expected?: TenantCounts): Promise<Filled> => {
    const { remarks, ...facts } = await copies.fillBeside(storage, options, fill);
    return { facts, remarks, ...(expected ? { expected } : {}) };
  };
  if ("sqlite" in from) {
    const user = rehearse ? undefined : await source.userOf(from.sqlite);
    if (user !== undefined) throw stillRuns(`${user} has ${from.sqlite} open`);
    const copy = await source.copySqlite(from.sqlite, work);
    try {
      const how = { release: fromRelease ?? release, serverName };
      return await filled((into) => copy.port(into, how, work), copy.counts);
    } finally {
      await copy.drop();
    }
  }
  if ("dump" in from) {
    const { content, bytes } = await source.dump(from.dump);
    async function* watched() {
      let done = 0;
      for await (const chunk of content) {
        say(`database: ${Math.floor((100 * (done += chunk.length)) / bytes)} % of the dump restored`);
        yield chunk;
      }
    }
    return filled((into) => copies.restore(into, watched(), signal));
  }
  return copies.dumpOf(
    from.login,
    async (dump, { others, counts }) => {
      if (others > 0 && !rehearse) throw stillRuns(`${others} others are connected to ${from.login.database}`);
      async function* watched() {
        let done = 0;
        for await (const chunk of dump) {
          say(`database: ${mebibytes((done += chunk.length))} copied`);
          yield chunk;
        }
      }
      return filled((into) => copies.restore(into, watched(), signal), counts);
    },
    signal,
  );
}

function stillRuns(why: string): UserError {
  return new UserError("Conflict", `the old server still runs: ${why}; stop it, or rehearse with --rehearse`);
}

function refuseUnlike(expected: TenantCounts, { counts }: CopyFacts): void {
  const differing = (Object.keys(counts) as (keyof TenantCounts)[]).filter((what) => counts[what] !== expected[what]);
  if (differing.length === 0) return;
  const what = differing.map((key) => `${counts[key]} ${key} instead of ${expected[key]}`).join(", ");
  throw new UserError("InvalidInput", `the database did not come over whole: ${what}; nothing was changed`);
}

function words({ users, devices, rooms, events, media }: TenantCounts): string {
  return `${users} users, ${devices} devices, ${rooms} rooms, ${events} events, ${media} uploads`;
}
