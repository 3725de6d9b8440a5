import { existsSync } from "node:fs";
import { join } from "node:path";
import fastifyStatic from "@fastify/static";
import type { FastifyInstance } from "fastify";
import { ROOT } from "../../model/project.ts";
import { refuseForeignHost } from "../access/browser-guard.ts";

/** What `npm run build` makes. */
const BUILT = join(ROOT, "console/dist");

/** Nothing but our own files, no script or style within a page, and no page of others around ours. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join("; ");

const HEADERS = {
  "content-security-policy": POLICY,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
};

/** Addresses of the console's pages, which its own router tells apart. */
const PAGES = [
  "/",
  "/enrol",
  "/overview",
  "/tenants",
  "/shards",
  "/events",
  "/audit",
  "/rollouts",
  "/settings",
  "/runbooks",
];

/** Names of files in `assets` have a hash of their content. */
const YEAR_SECONDS = 31_536_000;

/** Serves the console, where it is built. @param hosts names besides localhost under which it is reached */
export async function consoleFiles(app: FastifyInstance, hosts: readonly string[]): Promise<void> {
  if (!existsSync(join(BUILT, "index.html"))) return;
  await app.register(async (files) => {
    files.addHook("onRoute", (route) => {
      route.config = { ...route.config, access: "anybody" };
      route.schema = { ...route.schema, hide: true };
    });
    files.addHook("onRequest", async (request, reply) => {
      reply.headers(HEADERS);
      refuseForeignHost(request.headers.host, hosts);
    });
    await files.register(fastifyStatic, {
      root: BUILT,
      index: false,
      wildcard: false,
      preCompressed: true,
      globIgnore: ["**/*.br", "index.html"],
      cacheControl: false,
      setHeaders: (reply, path) => {
        const lasts = path.includes("/assets/");
        void reply.header("cache-control", lasts ? `public, max-age=${YEAR_SECONDS}, immutable` : "no-cache");
      },
    });
    for (const page of PAGES.flatMap((path) => (path === "/" ? [path] : [path, `${path}/*`])))
      files.get(page, (_request, reply) => reply.sendFile("index.html"));
  });
}
