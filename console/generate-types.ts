/** Writes `src/api/schema.gen.ts`, the API's types, from its OpenAPI document: before each check of types, so that they cannot be out of date. */
import { writeFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { join } from "node:path";
import pino from "pino";
import { Registry } from "prom-client";
import { buildApi } from "../src/api/server.ts";
import { Sessions } from "../src/api/access/sessions.ts";

// TypeScript 7 has no API for tools yet; the generator writes with the one before.
registerHooks({
  resolve: (specifier, context, next) => next(specifier === "typescript" ? "typescript-api" : specifier, context),
});

/** Routes only refer to it; none is called. */
const nothing = new Proxy({}, { get: () => () => undefined }) as never;

const api = await buildApi({
  service: nothing,
  backups: nothing,
  namedTokens: nothing,
  audit: nothing,
  routeFeed: nothing,
  onShutdown: () => {},
  console: { sessions: new Sessions(() => [""]), hosts: [], url: () => "http://localhost" },
  host: "127.0.0.1",
  port: 0,
  apiToken: "",
  gatewayToken: "",
  metrics: new Registry(),
  logger: pino({ enabled: false }),
});
const { default: openapiTS, astToString } = await import("openapi-typescript");
const types = astToString(await openapiTS(api.swagger() as never));
const file = join(import.meta.dirname, "src/api/schema.gen.ts");
writeFileSync(file, `/* Written by console/generate-types.ts. */\n${types}`);
await api.close();
