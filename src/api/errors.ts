import { randomUUID } from "node:crypto";
import type { FastifyError, FastifyInstance } from "fastify";
import type { Logger } from "pino";
import { machineProblem } from "../model/machine-problem.ts";
import { UserError, type ErrorCode } from "../model/errors.ts";

/** What every failed request is answered with. */
export interface ApiError {
  error: {
    /** One CamelCase word for machines. */
    code: string;
    /** One sentence for people. */
    message: string;
    details?: unknown;
  };
}

const STATUS_OF_CODE: Record<ErrorCode, number> = {
  NotFound: 404,
  AlreadyExists: 409,
  Conflict: 409,
  NoPlace: 409,
  SchemaTooNew: 409,
  InvalidInput: 422,
  InvalidConfig: 422,
  UnknownRelease: 422,
  UnsupportedRelease: 422,
  Unauthorized: 401,
  Forbidden: 403,
  RateLimited: 429,
  Unavailable: 503,
  Timeout: 504,
  Environment: 500,
};

/** A wrong request, with one entry per thing that is wrong. */
export class InvalidRequest extends UserError {
  readonly problems: string[];
  constructor(problems: string[]) {
    super("InvalidInput", problems.join("; "));
    this.problems = problems;
  }
}

/** What is said of requests that the HTTP layer refuses: its own words may quote the request, ours do not. */
const HTTP_LAYER: Record<number, { code: string; message: string }> = {
  400: { code: "InvalidInput", message: "the request is malformed: its body must be JSON" },
  413: { code: "TooLarge", message: "the request's body is larger than 1 MiB" },
  414: { code: "TooLarge", message: "the request's path is too long" },
  415: { code: "UnsupportedMediaType", message: "the request's body must be application/json" },
};

export function registerErrorHandling(app: FastifyInstance, logger: Logger): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const { status, body } = answerOf(error, (errorId) =>
      logger.error({ err: error, errorId, method: request.method, route: request.routeOptions.url }, "request failed"),
    );
    if (status === 401) void reply.header("www-authenticate", 'Bearer realm="synapse-shards"');
    return reply.code(status).send(body);
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split("?", 1)[0] ?? "";
    const body: ApiError = {
      error: {
        code: "NotFound",
        message: `there is no ${request.method} ${path.slice(0, 200)}; GET /v1/openapi.json has what there is`,
      },
    };
    return reply.code(404).send(body);
  });
}

/** @param recordBug is given the id under which the log shall have an unexpected error */
export function answerOf(error: Error, recordBug: (errorId: string) => void): { status: number; body: ApiError } {
  if (error instanceof InvalidRequest) {
    return answer(STATUS_OF_CODE.InvalidInput, { code: error.code, message: error.message, details: error.problems });
  }
  if (error instanceof UserError) {
    return answer(STATUS_OF_CODE[error.code], { code: error.code, message: error.message });
  }
  const status = "statusCode" in error && typeof error.statusCode === "number" ? error.statusCode : 500;
  // A full disk is nobody's bug; what was asked for has not been done.
  const problem = machineProblem(error);
  if (problem !== undefined)
    return answer(503, { code: "Unavailable", message: `the controller cannot do this now: ${problem}` });
  const known = HTTP_LAYER[status];
  if (known) return answer(status, known);
  const errorId = randomUUID().slice(0, 8);
  recordBug(errorId);
  return answer(500, {
    code: "InternalError",
    message: `internal error; the controller's log tells more under the id ${errorId}`,
    details: { errorId },
  });
}

function answer(status: number, error: ApiError["error"]): { status: number; body: ApiError } {
  return { status, body: { error } };
}
