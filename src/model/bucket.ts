import { z } from "zod";

const absolutePath = z.string().regex(/^\//, "an absolute path such as /etc/synapse-shards/s3.yaml");

/** A bucket of S3, or of a server that speaks it. */
export const BucketSchema = z.strictObject({
  bucket: z.string().regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, "the name of a bucket"),
  /** What keys begin with. */
  prefix: z
    .string()
    .regex(/^([A-Za-z0-9._-]+\/)*$/, 'empty, or names that each end in "/"')
    .default(""),
  endpoint: z.url({ protocol: /^https?$/ }).optional(),
  region: z.string().min(1).default("us-east-1"),
  /** A YAML file with accessKeyId and secretAccessKey. */
  credentialsFile: absolutePath,
});
export type BucketConfig = z.infer<typeof BucketSchema>;
