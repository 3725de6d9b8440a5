import {
  backupAt,
  BackupManifestSchema,
  VerificationSchema,
  type BackupManifest,
  type Verification,
} from "../../model/backup.ts";
import { messageOf, UserError } from "../../model/errors.ts";
import type { BackupTarget } from "../../ports/backups.ts";

/**
 * What is in a target, which needs nothing but the target:
 *
 * | key                               | what                                                        |
 * | --------------------------------- | ----------------------------------------------------------- |
 * | `backups/TENANT/ID/manifest.json` | written last: a backup without one does not count           |
 * | `backups/TENANT/ID/database.dump` | of pg_dump, in its custom format                            |
 * | `backups/TENANT/ID/keys.age`      | configuration and keys, sealed                              |
 * | `backups/TENANT/ID/media.ndjson.gz` | a line for each media file, with the hash of its content  |
 * | `backups/TENANT/ID/verified.json` | what came of the last verification                          |
 * | `media/TENANT/AB/SHA256`          | the content of media files, once each                       |
 * | `names/NAME/TENANT`               | a tenant of that name has, or had, its backups under TENANT |
 *
 * TENANT is what the tenant's data are named by, which is its name unless it was renamed (src/model/storage-name.ts).
 */
export class Catalogue {
  readonly target: BackupTarget;

  constructor(target: BackupTarget) {
    this.target = target;
  }

  /** Ids of complete backups by tenant, oldest first. @param tenant of all, where it is not given */
  async ids(tenant?: string): Promise<Map<string, string[]>> {
    const found = new Map<string, string[]>();
    for await (const { key } of this.target.list(tenant === undefined ? "backups/" : `backups/${tenant}/`)) {
      const [, name = "", id = "", file] = key.split("/");
      if (file !== "manifest.json") continue;
      found.set(name, [...(found.get(name) ?? []), id]);
    }
    return new Map([...found].map(([name, ids]) => [name, ids.toSorted()]));
  }

  /** @throws UserError NotFound; Environment where it is damaged, or of another version */
  async manifest(tenant: string, id: string): Promise<BackupManifest> {
    const words = `backup ${id} of ${tenant} in ${this.target.place}`;
    let text: string;
    try {
      text = (await this.read(keyOf(tenant, id, "manifest.json"))).toString("utf8");
    } catch (error) {
      if (!(error instanceof UserError && error.code === "NotFound")) throw error;
      throw new UserError("NotFound", `there is no ${words}`, { cause: error });
    }
    try {
      const manifest = BackupManifestSchema.parse(JSON.parse(text));
      if (manifest.tenant !== tenant || manifest.id !== id) throw new Error("it is another backup's");
      return manifest;
    } catch (error) {
      throw new UserError("Environment", `the manifest of ${words} cannot be read: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  /** Oldest first; damaged ones are passed over. */
  async all(tenant: string): Promise<BackupManifest[]> {
    const manifests: BackupManifest[] = [];
    for (const id of (await this.ids(tenant)).get(tenant) ?? []) {
      try {
        manifests.push(await this.manifest(tenant, id));
      } catch (error) {
        if (!(error instanceof UserError && (error.code === "Environment" || error.code === "NotFound"))) throw error;
      }
    }
    return manifests;
  }

  /** Where the backups are of a tenant that nobody knows any more: those whose newest one is of that name. */
  async storageOf(name: string): Promise<string> {
    const candidates = [name];
    for await (const { key } of this.target.list(`names/${name}/`)) candidates.push(key.split("/")[2] ?? name);
    const newest: BackupManifest[] = [];
    for (const candidate of candidates) {
      const last = backupAt(await this.all(candidate));
      if (last && nameOf(last) === name) newest.push(last);
    }
    return backupAt(newest)?.tenant ?? name;
  }

  async add(manifest: BackupManifest): Promise<void> {
    const { tenant, id, name } = manifest;
    if (name !== undefined) await this.target.put(`names/${name}/${tenant}`, Buffer.from("{}"));
    await this.target.put(keyOf(tenant, id, "manifest.json"), Buffer.from(JSON.stringify(manifest, null, 2)));
  }

  /** The manifest first: what is half removed is not in the catalogue. */
  async remove({ tenant, id }: Pick<BackupManifest, "tenant" | "id">): Promise<void> {
    for (const file of ["manifest.json", "verified.json", "database.dump", "keys.age", "media.ndjson.gz"])
      await this.target.remove(keyOf(tenant, id, file));
  }

  async verification({ tenant, id }: BackupManifest): Promise<Verification | undefined> {
    try {
      return VerificationSchema.parse(
        JSON.parse((await this.read(keyOf(tenant, id, "verified.json"))).toString("utf8")),
      );
    } catch {
      return undefined;
    }
  }

  async noteVerification({ tenant, id }: BackupManifest, verification: Verification): Promise<void> {
    await this.target.put(keyOf(tenant, id, "verified.json"), Buffer.from(JSON.stringify(verification)));
  }

  /** All of a small object. */
  async read(key: string): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of await this.target.get(key)) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  }
}

/** The name that the tenant had when it was backed up. */
export function nameOf({ name, tenant }: Pick<BackupManifest, "name" | "tenant">): string {
  return name ?? tenant;
}

export function keyOf(tenant: string, id: string, file: string): string {
  return `backups/${tenant}/${id}/${file}`;
}
