import type { Tenant } from "../../model/tenant.ts";

/** Whether a line names a server, and not another one whose name ends, or begins, with the same letters. */
export function mentions(serverName: string): (line: string) => boolean {
  const name = new RegExp(
    `(?<![A-Za-z0-9.-])${serverName.replaceAll(/[.[\]]/g, "\\$&")}(?![A-Za-z0-9-]|:\\d|\\.[A-Za-z0-9])`,
  );
  return (line) => name.test(line);
}

/**
 * Whether the tenant's own homeserver wrote a line of its shard's log. Lines of its neighbours mention it as well, with their users and clients;
 * and a server name may have been another customer's before.
 */
export function isLineOf({ spec, metadata }: Tenant): (line: string) => boolean {
  const since = Date.parse(metadata.creationTimestamp);
  return (line) => {
    if (!line.startsWith("{")) return false;
    try {
      const { serverName, time } = JSON.parse(line) as { serverName?: unknown; time?: unknown };
      return serverName === spec.serverName && typeof time === "string" && Date.parse(time) >= since;
    } catch {
      return false;
    }
  };
}
