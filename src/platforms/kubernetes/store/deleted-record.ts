import { gunzipSync, gzipSync } from "node:zlib";
import type { V1Secret } from "@kubernetes/client-node";
import type { DeletedTenant } from "../../../model/deleted-tenant.ts";
import { UserError } from "../../../model/errors.ts";
import { RecordTooLarge } from "../../../ports/deleted-tenants.ts";
import type { TenantDefinition } from "./kubernetes-store.ts";

const KEY = "record.json.gz";
/** Of earlier versions, without compression. */
const PLAIN_KEY = "record.json";
/** Kubernetes takes 1 MiB of data in a Secret. */
const MOST_PACKED = 1024 * 1024;
/** The API server takes 1.5 MiB in an object, which is escaped here at most twice as long. */
const MOST_BYTES = 4 * 1024 * 1024;

/** What is kept of a deleted tenant. The configuration is in the definition, and only if it is not in a Secret of the tenant's. */
export interface Kept {
  record: DeletedTenant;
  /** Absent where it cannot be had back. */
  definition?: TenantDefinition;
}

/** @throws RecordTooLarge */
export function packed(kept: Kept): Record<string, string> {
  const text = Buffer.from(JSON.stringify(kept));
  const bytes = gzipSync(text);
  if (text.length <= MOST_BYTES && bytes.length <= MOST_PACKED) return { [KEY]: bytes.toString("base64") };
  throw new RecordTooLarge(
    `what is to be kept of ${kept.record.name} takes ${bytes.length} bytes when it is compressed (${text.length} before), and Kubernetes takes ` +
      `${MOST_PACKED} in a Secret: shorten the configuration or the annotations of its SynapseTenant, move the configuration into a Secret ` +
      "(spec.secretName), or set reclaimPolicy: Delete, which keeps nothing of it",
  );
}

/** @throws UserError Environment where it is not what `packed` makes */
export function unpacked({ metadata, data = {} }: V1Secret): Kept {
  try {
    const { [KEY]: compressed, [PLAIN_KEY]: plain = "" } = data;
    const bytes = Buffer.from(compressed ?? plain, "base64");
    const text = compressed === undefined ? bytes : gunzipSync(bytes, { maxOutputLength: MOST_BYTES });
    return JSON.parse(text.toString("utf8")) as Kept;
  } catch (error) {
    throw new UserError(
      "Environment",
      `the Secret ${metadata?.name} has no record of a deleted tenant that can be read`,
      { cause: error },
    );
  }
}
