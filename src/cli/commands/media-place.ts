import { resolve } from "node:path";
import { CliError, EXIT } from "../errors.ts";
import { targetIn } from "./restore-options.ts";

export interface MediaOptions {
  media?: string;
  mediaCredentials?: string;
  mediaEndpoint?: string;
  mediaRegion?: string;
}

const S3_URL = /^s3:\/\/([^/]+)(?:\/(.*))?$/;

/**
 * Where media are: a directory, a bucket as a URL, or a file that describes a bucket. Keys are in a file of the controller's machine, which is
 * named, so that no list of processes has them.
 * @throws CliError usage
 */
export async function mediaIn({ media, mediaCredentials, mediaEndpoint, mediaRegion }: MediaOptions): Promise<unknown> {
  const isUrl = media?.startsWith("s3:") === true;
  const [, bucket, prefix = ""] = S3_URL.exec(media ?? "") ?? [];
  if (!isUrl) {
    if (mediaCredentials !== undefined || mediaEndpoint !== undefined || mediaRegion !== undefined)
      throw new CliError(EXIT.usage, "--media-credentials, --media-endpoint and --media-region are for --media s3://…");
    const place = await targetIn(media, "--media");
    return typeof place === "object" && place !== null && "directory" in place ? place.directory : place;
  }
  if (bucket === undefined) throw new CliError(EXIT.usage, "--media has to be s3://BUCKET or s3://BUCKET/PREFIX");
  if (mediaCredentials === undefined)
    throw new CliError(
      EXIT.usage,
      "--media s3://… needs --media-credentials FILE, a YAML file with accessKeyId and secretAccessKey",
    );
  return {
    bucket,
    // The provider of Synapse does the same.
    prefix: prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`,
    ...(mediaEndpoint === undefined ? {} : { endpoint: mediaEndpoint }),
    ...(mediaRegion === undefined ? {} : { region: mediaRegion }),
    credentialsFile: resolve(mediaCredentials),
  };
}
