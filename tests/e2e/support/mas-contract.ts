import type { IncomingHttpHeaders } from "node:http";
import { parse } from "node:querystring";

/** What the service asks a tenant, and what it is told; `{server}` stands for the server name. */
export interface AskedOfTenant {
  method: string;
  path: string;
  body: unknown;
  status: number;
  answer: unknown;
}

/** What a tenant was told of a token, by the user and the kind of session. */
export interface Introspected {
  asked: { headers: Record<string, string>; fields: string[] };
  answer: Record<string, unknown>;
}

export interface Contract {
  metadata: Record<string, unknown>;
  introspections: Introspected[];
  ofTenant: AskedOfTenant[];
}

/** Where both were, for which placeholders stand. */
export interface Places {
  serverName: string;
  service: string;
  home: string;
}

/** The value with placeholders in the place of addresses; or the other way round. */
export function placed(value: unknown, { serverName, service, home }: Places): unknown {
  const text = JSON.stringify(value)
    .replaceAll(serverName, "{server}")
    .replaceAll(service, "{service}")
    .replaceAll(home, "{home}");
  return JSON.parse(text);
}
export function unplaced(value: unknown, { serverName, service, home }: Places): unknown {
  const text = JSON.stringify(value)
    .replaceAll("{server}", serverName)
    .replaceAll("{service}", service)
    .replaceAll("{home}", home);
  return JSON.parse(text);
}

/** How a tenant asks: the headers that matter, and the form's fields. */
export function shapeOf({ headers, asked }: { headers: IncomingHttpHeaders; asked: string }): Introspected["asked"] {
  const kept = ["content-type", "accept", "x-mas-supports-device-id"];
  const scheme = /^\w+/.exec(headers.authorization ?? "")?.[0] ?? "";
  return {
    headers: { authorization: scheme, ...Object.fromEntries(kept.map((name) => [name, String(headers[name])])) },
    fields: Object.keys(parse(asked)),
  };
}
