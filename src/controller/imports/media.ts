import { UserError } from "../../model/errors.ts";
import type { MediaPlace } from "../../model/import.ts";
import type { Bytes, MediaFile, TenantMediaFiles } from "../../ports/backups.ts";
import type { ImportSource } from "../../ports/imports.ts";
import type { Work } from "../backups/back-up.ts";
import { Hashed, readThrough } from "../backups/hashing.ts";

interface Ends {
  media: TenantMediaFiles;
  source: ImportSource;
}

/**
 * Copies the media that are not copied yet to where the tenant can be given them, and reads each again. Interrupted, it goes on where it was. Of what
 * is in several places, the first one's is taken.
 * @returns how many there are, and how many of them are new
 */
export async function copyMedia(
  ends: Ends,
  tenant: string,
  places: readonly MediaPlace[],
  { say, signal }: Work,
): Promise<{ files: number; copied: number }> {
  const count = { files: 0, copied: 0 };
  const taken = new Set<string>();
  for (const place of places)
    for await (const file of ends.source.media(place)) {
      signal.throwIfAborted();
      if (taken.has(file.path)) continue;
      taken.add(file.path);
      count.files += 1;
      if (count.files % 50 === 0) say(`media: ${count.files} files, ${count.copied} of them copied now`);
      if (await ends.media.hasStaged(tenant, file)) continue;
      await copyFile(ends, tenant, place, file);
      count.copied += 1;
    }
  return count;
}

/** @throws UserError Unavailable where the copy is not what is there */
async function copyFile(
  { media, source }: Ends,
  tenant: string,
  place: MediaPlace,
  { path, bytes }: MediaFile,
): Promise<void> {
  const content = new Hashed((await source.openMedia(place, path)) as Bytes);
  await media.stage(tenant, path, content);
  const copy = new Hashed((await media.openStaged(tenant, path)) as Bytes);
  await readThrough(copy);
  if (copy.sha256 !== content.sha256)
    throw new UserError("Unavailable", `media file ${path} is another one after it was copied: check the disks`);
  if (copy.bytes !== bytes)
    throw new UserError(
      "Unavailable",
      `of media file ${path}, ${copy.bytes} bytes came instead of ${bytes}: begin again, which copies it once more`,
    );
}
