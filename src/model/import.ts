import { z } from "zod";
import { BucketSchema } from "./bucket.ts";

/** What becomes of one option of an imported homeserver.yaml. */
export const OptionVerdictSchema = z.object({
  option: z.string(),
  verdict: z
    .enum(["taken", "changed", "refused", "unknown"])
    .describe("taken as it is; changed, as the platform does it otherwise; refused; unknown, so without effect."),
  why: z.string(),
});
export type OptionVerdict = z.infer<typeof OptionVerdictSchema>;

const absolutePath = z.string().max(4_096).regex(/^\//, "an absolute path of the controller's machine");

/** A homeserver to import. Paths are of the controller's machine. */
export const ImportRequestSchema = z.strictObject({
  homeserverYaml: absolutePath,
  database: z
    .union([
      z.strictObject({ sqlite: absolutePath }),
      z.strictObject({ dump: absolutePath.describe("Of pg_dump, in its custom format.") }),
      z.strictObject({
        url: z
          .url({ protocol: /^postgres(ql)?$/ })
          .max(2_000)
          .describe("Without a password, the one in homeserver.yaml."),
      }),
    ])
    .optional()
    .describe("Default: the database that homeserver.yaml names."),
  media: z
    .union([absolutePath, BucketSchema], {
      error: "an absolute path of the controller's machine, or a bucket with credentialsFile",
    })
    .optional()
    .describe(
      "A directory, or the bucket of Synapse's S3 storage provider. Default: the media_store_path of homeserver.yaml.",
    ),
  fromRelease: z
    .string()
    .max(40)
    .optional()
    .describe("The release that the old server ran last; for SQLite. Default: the cluster's."),
  release: z.string().max(40).optional().describe("The release that it is to run. Default: the cluster's."),
  withoutRefused: z.boolean().default(false).describe("Import it without the options that a tenant may not set."),
  rehearse: z
    .boolean()
    .default(false)
    .describe("Try everything, keep only copies of media, and tell how long the switch takes."),
});
export type MediaPlace = NonNullable<z.infer<typeof ImportRequestSchema>["media"]>;
export type ImportRequest = z.infer<typeof ImportRequestSchema>;
