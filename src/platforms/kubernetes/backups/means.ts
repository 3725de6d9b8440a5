import { tmpdir } from "node:os";
import { ageSealer } from "../../../backups/age-sealer.ts";
import { BucketMediaFiles } from "../../../backups/bucket-media.ts";
import { backupTarget } from "../../../backups/target.ts";
import { tenantDestinations } from "../../../checks/tenant-destinations.ts";
import type { ControllerContext } from "../../../controller/context.ts";
import { asItRuns } from "../../../controller/start/configs.ts";
import { PostgresOwnDatabases } from "../../../database/own-databases.ts";
import type { PgPrograms } from "../../../database/pg-programs.ts";
import { ScratchServer } from "../../../database/scratch-server.ts";
import { mediaBucketOf, type MediaBucket } from "../../../model/media-bucket.ts";
import type { AssignmentPolicy } from "../../../model/tenant-policy.ts";
import type { BackupMeans, OwnDatabases } from "../../../ports/backups.ts";
import { BroughtCopies } from "./brought-copies.ts";
import type { KubernetesBackupsConfig } from "./config.ts";

/** Of the image. */
const BIN_DIR = "/opt/postgres/embedded_postgres/pginstall/bin";
/** A database on disk, its log of changes and what PostgreSQL has besides: the volume is larger by this. */
const SPACE_BESIDES = 512 * 1024 ** 2;

export interface BackupParts {
  means: BackupMeans;
  databases: OwnDatabases;
}

/** How backups are made, of what tenants bring along. @param policyOf what a tenant may, by its name */
export function backupParts(
  config: KubernetesBackupsConfig,
  context: Pick<ControllerContext, "store" | "reader" | "plans">,
  policyOf: (tenant: string) => AssignmentPolicy,
): BackupParts {
  const programs = programsOfImage();
  const scratch = new ScratchServer({
    programs,
    directory: config.scratch.directory,
    mostBytes: config.scratch.bytes - SPACE_BESIDES,
  });
  const media = new BucketMediaFiles({
    bucketOf: (storage) => bucketOf(context, storage),
    mayConnect: (storage, address, port) => {
      const name = context.reader.withStorage(storage)?.metadata.name ?? storage;
      return tenantDestinations(policyOf(name))(address, port);
    },
  });
  const target = backupTarget(config.target, "/nonexistent");
  return {
    means: { target, sealer: ageSealer, copies: new BroughtCopies(programs, scratch), media },
    databases: new PostgresOwnDatabases(programs),
  };
}

async function bucketOf(
  context: Pick<ControllerContext, "store" | "reader" | "plans">,
  storage: string,
): Promise<MediaBucket | string> {
  const tenant = context.reader.withStorage(storage);
  const runs = tenant && (await asItRuns(context, tenant));
  return runs ? mediaBucketOf(runs.tenant.spec.config) : "its keys are missing";
}

function programsOfImage(): PgPrograms {
  return { binDir: BIN_DIR, environment: { PATH: process.env["PATH"] ?? "", HOME: tmpdir() } };
}
