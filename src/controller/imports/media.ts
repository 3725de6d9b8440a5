import { UserError } from "../../model/errors.ts";
import type { MediaPlace } from "../../model/import.ts";
import type { Bytes, TenantMediaFiles } from "../../ports/backups.ts";
import type { ImportSource } from "../../ports/imports.ts";
import type { Work } from "../backups/back-up.ts";
import { Hashed, readThrough } from "../backups/hashing.ts";

/**
 * Copies the media that are not copied yet to where the tenant can be given them, and reads each again. Interrupted, it goes on where it was.
 * @returns how many there are, and how many of them are new
 */
export async function copyMedia(
  { media, source }: { media: TenantMediaFiles; source: ImportSource },
  tenant: string,
  place: MediaPlace,
  { say, signal }: Work,
): Promise<{ files: number; copied: number }> {
  const count = { files: 0, copied: 0 };
  for await (const file of source.media(place)) {
    signal.throwIfAborted();
    count.files += 1;
    if (count.files % 50 === 0) say(`media: ${count.files} files, ${count.copied} of them copied now`);
    if (await media.hasStaged(tenant, file)) continue;
    const content = new Hashed((await source.openMedia(place, file.path)) as Bytes);
    await media.stage(tenant, file.path, content);
    const copy = new Hashed((await media.openStaged(tenant, file.path)) as Bytes);
    await readThrough(copy);
    if (copy.sha256 !== content.sha256)
      throw new UserError("Unavailable", `media file ${file.path} is another one after it was copied: check the disks`);
    count.copied += 1;
  }
  return count;
}
