/**
 * connection: refused or broken, or not to be had. timeout: the homeserver is silent. request: it cannot be put into HTTP.
 * response: the answer is not HTTP.
 */
export type UpstreamFault = "connection" | "timeout" | "request" | "response";

const CONNECTION = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "EHOSTDOWN",
  "ENETUNREACH",
  "ENETDOWN",
  "EADDRNOTAVAIL",
  // Ours, and passing: no descriptors or buffers left for another connection.
  "EMFILE",
  "ENFILE",
  "ENOBUFS",
  "ENOTFOUND",
  "EAI_AGAIN",
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_SOCKET",
  "UND_ERR_CLOSED",
  "UND_ERR_DESTROYED",
]);

/** What sort of failure an error of the HTTP client is. */
export function faultOf(error: Error): UpstreamFault {
  const { code = "" } = error as NodeJS.ErrnoException;
  if (CONNECTION.has(code)) return "connection";
  if (code === "UND_ERR_HEADERS_TIMEOUT" || code === "UND_ERR_BODY_TIMEOUT") return "timeout";
  if (
    code === "UND_ERR_INVALID_ARG" ||
    code === "UND_ERR_REQ_CONTENT_LENGTH_MISMATCH" ||
    code === "UND_ERR_NOT_SUPPORTED"
  )
    return "request";
  return "response";
}
