import { z } from "zod";
import { TenantCountsSchema } from "./backup.ts";

/** A file of an archive, as it comes. Its content is read once, before the next file's. */
export interface ArchiveFile {
  /** Without the archive's own directory, such as `media_store/local_content/ab/cd/efgh`. */
  path: string;
  bytes: number;
  content: AsyncIterable<Uint8Array>;
}

/** What the last file of an exported archive says; without it the archive is not complete. */
export const ExportManifestSchema = z.object({
  format: z.literal(1),
  kind: z.literal("synapse-homeserver"),
  serverName: z.string(),
  /** The release of Synapse whose schema the database has. */
  release: z.string(),
  /** When the database's snapshot was taken. */
  takenAt: z.iso.datetime(),
  counts: TenantCountsSchema,
  /** Of SHA256SUMS, which has those of all other files. */
  checksums: z.object({ files: z.int().min(0), sha256: z.string().regex(/^[0-9a-f]{64}$/) }),
});
export type ExportManifest = z.infer<typeof ExportManifestSchema>;

/** Names of what is in every exported archive. */
export const ARCHIVED = {
  readme: "README.md",
  config: "homeserver.yaml",
  signingKey: "signing.key",
  logConfig: "log.yaml",
  database: "database.dump",
  media: "media_store",
  checksums: "SHA256SUMS",
  manifest: "manifest.json",
  /** In the manifest's place, with the reason, where the archive could not be completed. */
  failed: "FAILED.txt",
} as const;

/** A line of SHA256SUMS, which `sha256sum --check` reads. */
export function checksumLine(sha256: string, path: string): string {
  return `${sha256}  ${path}\n`;
}

const LINE = /^([0-9a-f]{64}) [ *](.+)$/;

/** @returns hashes by path; undefined where it is no such file */
export function readChecksums(text: string): Map<string, string> | undefined {
  const found = new Map<string, string>();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const [, sha256, path] = LINE.exec(line) ?? [];
    if (sha256 === undefined || path === undefined) return undefined;
    found.set(path, sha256);
  }
  return found;
}

/** Whether a path stays below the directory that it is relative to, and is spelt in one way only. */
export function isPlainPath(path: string): boolean {
  return (
    path.length <= 1_024 &&
    // oxlint-disable-next-line no-control-regex -- that is what it is about
    !/[\u0000-\u001f\\]/.test(path) &&
    path.split("/").every((part) => part !== "" && part !== "." && part !== "..")
  );
}
