import { createHash } from "node:crypto";

export const LABELS = {
  cluster: "synapse-shards.io/cluster",
  shard: "synapse-shards.io/shard",
  imageTag: "synapse-shards.io/image-tag",
} as const;

/** A StatefulSet puts up to 11 characters behind its name into a label of its pods, and labels end at 63. */
const LONGEST_NAME = 52;
const LONGEST_LABEL = 63;
const HASH_DIGITS = 8;

/**
 * The name of a shard's StatefulSet, Service and Secret: `<clusterId>-shard-<tag>-<index>`, with dashes for what DNS does not
 * have. Where that would be too long, or could be another tag's as well (`1.163.2-rc.1` and `1.163.2.rc-1`), it ends with a hash.
 */
export function shardObjectName(clusterId: string, shard: string): string {
  const name = `${clusterId}-shard-${shard}`.toLowerCase().replaceAll(/[^a-z0-9-]/g, "-");
  const unambiguous = /^v?\d+\.\d+\.\d+-\d+$/.test(shard);
  if (unambiguous && name.length <= LONGEST_NAME) return name;
  return `${name.slice(0, LONGEST_NAME - HASH_DIGITS - 1).replace(/-+$/, "")}-${hashOf(`${clusterId}/${shard}`)}`;
}

/** The pod of a StatefulSet of one replica. */
export function podNameOf(objectName: string): string {
  return `${objectName}-0`;
}

/** A text as the value of a label, which is shorter than an image tag may be. */
export function labelValue(text: string): string {
  if (text.length <= LONGEST_LABEL) return text;
  return `${text.slice(0, LONGEST_LABEL - HASH_DIGITS - 1)}-${hashOf(text)}`;
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, HASH_DIGITS);
}
