import { placed, shapeOf, type AskedOfTenant, type Contract, type Introspected, type Places } from "./mas-contract.ts";
import type { HttpWire } from "./wire.ts";

/** Of an answer about a token, what is another one each time. */
const FLEETING = new Set(["jti", "exp", "iat", "nbf"]);

/** Each kind of exchange once, in the order in which they came. */
export function recordingOf(toService: HttpWire, toTenant: HttpWire, places: Places): Contract {
  const metadata = toService.exchanged.find(({ path }) => path === "/.well-known/openid-configuration");
  const introspections = new Map<string, Introspected>();
  for (const one of toService.exchanged.filter(({ path }) => path === "/oauth2/introspect")) {
    const answer = Object.fromEntries(
      Object.entries(jsonOf(one.answered) as object).filter(([key]) => !FLEETING.has(key)),
    );
    const key = Object.keys(answer).join(" ");
    if (!introspections.has(key)) introspections.set(key, { asked: shapeOf(one), answer });
  }
  // A user's own come one after another: what is answered depends on it.
  const ofTenant = new Map<string, AskedOfTenant>();
  for (const { method, path, asked, status, answered } of toTenant.exchanged) {
    const entry = placed(
      { method, path, body: jsonOf(asked), status, answer: jsonOf(answered) },
      places,
    ) as AskedOfTenant;
    const { localpart = "", ...body } = (entry.body || {}) as Record<string, unknown>;
    const key = [method, path, localpart as string, status, ...Object.keys(body)].join(" ");
    if (!ofTenant.has(key)) ofTenant.set(key, entry);
  }
  return {
    metadata: (metadata ? placed(JSON.parse(metadata.answered), places) : {}) as Contract["metadata"],
    introspections: [...introspections.values()],
    ofTenant: [...ofTenant.values()],
  };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
