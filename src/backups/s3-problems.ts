import { messageOf, UserError, type ErrorCode } from "../model/errors.ts";

/** Of what a server says, which may be a tenant's. */
const WORDS_KEPT = 500;

/**
 * Runs something with S3.
 * @param what the place, such as `the backup target s3://backups/` @param key what is asked for, where that may be missing
 * @throws UserError that names the place, for what S3 says
 */
export async function atS3<T>(what: string, work: () => Promise<T>, key?: string): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const {
      name = "",
      code = "",
      $metadata,
    } = error as {
      name?: string;
      code?: string;
      $metadata?: { httpStatusCode?: number };
    };
    const status = $metadata?.httpStatusCode;
    const isAway = code !== "" || name === "TimeoutError" || name === "AggregateError";
    if (error instanceof UserError || (!isAway && status === undefined)) throw error;
    if (key !== undefined && (name === "NoSuchKey" || name === "NotFound"))
      throw new UserError("NotFound", `${what} has no ${key}`, { cause: error });
    const isRefused = status === 401 || status === 403;
    const kind: ErrorCode = isRefused ? "Unauthorized" : name === "NoSuchBucket" ? "Environment" : "Unavailable";
    const words = (messageOf(error) || code || name).slice(0, WORDS_KEPT);
    const how = isRefused ? "refuses the credentials" : name === "NoSuchBucket" ? "is not there" : "cannot be used";
    throw new UserError(kind, `${what} ${how}: ${words}`, { cause: error });
  }
}
