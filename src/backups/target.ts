import { readFile, stat } from "node:fs/promises";
import { join, resolve, sep } from "node:path";
import { z } from "zod";
import type { BackupTargetConfig } from "../model/backup.ts";
import type { BucketConfig } from "../model/bucket.ts";
import { checkConfig, readConfigFile } from "../model/config-file.ts";
import { UserError } from "../model/errors.ts";
import type { BackupTarget, Bytes } from "../ports/backups.ts";
import { DirectoryTarget } from "./directory-target.ts";

const CredentialsSchema = z.strictObject({ accessKeyId: z.string().min(1), secretAccessKey: z.string().min(1) });

/** @param dataDir what backups must not be in @throws UserError InvalidConfig */
export function backupTarget(config: BackupTargetConfig, dataDir: string): BackupTarget {
  if (!("directory" in config)) return bucketTarget(config);
  const directory = resolve(config.directory);
  if (`${directory}${sep}`.startsWith(`${resolve(dataDir)}${sep}`))
    throw new UserError(
      "InvalidConfig",
      `backups.target.directory ${directory} is in the data directory ${dataDir}, with which it would be lost`,
    );
  return new DirectoryTarget(directory);
}

export function bucketTarget(config: BucketConfig): BackupTarget {
  return new LateS3Target(config);
}

/** A file; or, as Kubernetes has Secrets, a directory with a file for each. */
async function readCredentials(path: string): Promise<z.infer<typeof CredentialsSchema>> {
  if (!(await stat(path).catch(() => undefined))?.isDirectory()) return readConfigFile(path, CredentialsSchema);
  const read = async (key: string) => (await readFile(join(path, key), "utf8").catch(() => "")).trim();
  const [accessKeyId, secretAccessKey] = await Promise.all(["accessKeyId", "secretAccessKey"].map(read));
  return checkConfig({ accessKeyId, secretAccessKey }, CredentialsSchema, path);
}

/** The client of S3 takes a while to load, and most clusters do without. */
class LateS3Target implements BackupTarget {
  readonly place: string;
  readonly #target: () => Promise<BackupTarget>;

  constructor(config: BucketConfig) {
    this.place = `s3://${config.bucket}/${config.prefix}`;
    let target: Promise<BackupTarget> | undefined;
    this.#target = () =>
      (target ??= import("./s3-target.ts").then(
        ({ S3Target }) => new S3Target(config, () => readCredentials(config.credentialsFile)),
      ));
  }

  async put(key: string, content: Bytes | Uint8Array): Promise<void> {
    return (await this.#target()).put(key, content);
  }

  async get(key: string) {
    return (await this.#target()).get(key);
  }

  async *list(prefix: string) {
    yield* (await this.#target()).list(prefix);
  }

  async remove(key: string): Promise<void> {
    return (await this.#target()).remove(key);
  }
}
