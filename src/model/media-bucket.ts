import { YamlProblem } from "./bounded-yaml.ts";
import { isMapping } from "./mapping.ts";
import { readSynapseYaml } from "./synapse-yaml.ts";

/** The bucket that a tenant brings along for its media. */
export interface MediaBucket {
  bucket: string;
  /** What keys begin with, as the provider puts it before a path. */
  prefix: string;
  /** Absent: AWS. */
  endpoint?: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
}

const PROVIDER = "s3_storage_provider.S3StorageProviderBackend";
const DEFAULT_REGION = "us-east-1";

/**
 * The bucket with all of a tenant's media, as Synapse's S3 storage provider reads it in homeserver.yaml; or why nobody but the tenant's own process can
 * get at them, in words that fit after "its media are left out: ".
 */
export function mediaBucketOf(config: string): MediaBucket | string {
  const provider = providerIn(config);
  if (!provider) return "its configuration names no bucket for them";
  const { bucket, access_key_id: accessKeyId, secret_access_key: secretAccessKey, ...more } = provider;
  if (!isText(bucket)) return "its configuration names no bucket for them";
  if (!isText(accessKeyId) || !isText(secretAccessKey))
    return `its configuration has no access_key_id and secret_access_key for the bucket ${bucket}`;
  if ("sse_customer_key" in more)
    return `those in the bucket ${bucket} are encrypted with a key of the tenant's own (sse_customer_key)`;
  const { endpoint_url: endpoint, region_name: region, prefix } = more;
  if (endpoint !== undefined && !isUrl(endpoint)) return `endpoint_url of the bucket ${bucket} is no URL`;
  return {
    bucket,
    prefix: isText(prefix) ? prefix : "",
    ...(endpoint === undefined ? {} : { endpoint }),
    region: isText(region) ? region : DEFAULT_REGION,
    accessKeyId,
    secretAccessKey,
  };
}

function providerIn(text: string): Record<string, unknown> | undefined {
  let config: Record<string, unknown>;
  try {
    config = readSynapseYaml(text);
  } catch (error) {
    if (error instanceof YamlProblem) return undefined;
    throw error;
  }
  const providers = config["media_storage_providers"];
  if (!Array.isArray(providers)) return undefined;
  const ours = (providers as unknown[]).find((one) => isMapping(one) && one["module"] === PROVIDER);
  const settings = isMapping(ours) ? ours["config"] : undefined;
  return isMapping(settings) ? settings : undefined;
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}

function isUrl(value: unknown): value is string {
  return typeof value === "string" && URL.canParse(value) && /^https?:$/.test(new URL(value).protocol);
}
