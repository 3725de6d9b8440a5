/**
 * Two sorts of errors. A `UserError` is somebody's mistake or a state they can change: it has a stable code, says what,
 * where and what is allowed, and is shown without a stack. Everything else is a bug, and is shown with one.
 */
export type ErrorCode =
  | "InvalidInput"
  | "InvalidConfig"
  | "NotFound"
  | "AlreadyExists"
  | "Conflict"
  | "NoPlace"
  | "SchemaTooNew"
  | "UnknownRelease"
  | "UnsupportedRelease"
  | "Unauthorized"
  | "Forbidden"
  | "RateLimited"
  | "Unavailable"
  | "Timeout"
  | "Environment";

export class UserError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "UserError";
    this.code = code;
  }
}

/** The words of any thrown value, for messages; never a stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A tenant cannot be started because of itself, its configuration or its release; its owner or operator can read why, and fix it. */
export class StartFailure extends Error {
  readonly reason: string;
  constructor(reason: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "StartFailure";
    this.reason = reason;
  }
}
