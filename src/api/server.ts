import fastifySwagger from "@fastify/swagger";
import fastify from "fastify";
import {
  createJsonSchemaTransform,
  createJsonSchemaTransformObject,
  type ZodTypeProvider,
} from "fastify-type-provider-zod";
import type { Logger } from "pino";
import type { Registry } from "prom-client";
import { z } from "zod";
import type { BackupService } from "../controller/service/backup-service.ts";
import type { InspectionService } from "../controller/service/inspection-service.ts";
import type { ImportService } from "../controller/service/import-service.ts";
import type { ExportService } from "../controller/service/export-service.ts";
import type { NotificationService } from "../controller/service/notification-service.ts";
import type { CertificateService } from "../controller/service/certificate-service.ts";
import type { FleetService } from "../controller/service/fleet-service.ts";
import type { ClusterService } from "../controller/service/cluster-service.ts";
import { UserError } from "../model/errors.ts";
import { failures, type Api, type RouteFeedSource } from "./api.ts";
import { accountRoutes } from "./access/accounts/account-routes.ts";
import { accessRoutes } from "./access/access-routes.ts";
import { registerAudit, type AuditLog, type Look } from "./audit.ts";
import { snapshotOf } from "./audit-changes.ts";
import { registerAuthentication, type Tokens } from "./access/authentication.ts";
import { registerAuthorization } from "./access/authorization.ts";
import { adminAccessRoutes } from "./admin-access-routes.ts";
import { backupRoutes } from "./backup-routes.ts";
import { inspectionRoutes } from "./inspection-routes.ts";
import { importRoutes } from "./import-routes.ts";
import { certificateRoutes } from "./certificate-routes.ts";
import { exportRoutes } from "./export-routes.ts";
import { registerBodyParsing } from "./bodies.ts";
import { consoleFiles } from "./console/console-files.ts";
import { sessionRoutes } from "./access/session-routes.ts";
import { clusterRoutes, openRoutes, routeFeedRoutes } from "./cluster-routes.ts";
import { deletedRoutes } from "./deleted-routes.ts";
import { registerErrorHandling } from "./errors.ts";
import { fleetRoutes } from "./fleet-routes.ts";
import { gentleClose } from "./gentle-close.ts";
import { historyRoutes } from "./history-routes.ts";
import { databaseRoutes } from "./database-routes.ts";
import { renameRoutes } from "./rename-routes.ts";
import { onboardingRoutes } from "./onboarding-routes.ts";
import { notificationRoutes } from "./notification-routes.ts";
import { quotaRoutes } from "./quota-routes.ts";
import { shardRoutes } from "./shard-routes.ts";
import type { NamedTokens } from "./access/named-tokens.ts";
import { lineSender } from "./streams.ts";
import { tenantRoutes } from "./tenant-routes.ts";
import { configRoutes } from "./config-routes.ts";
import { appServiceRoutes } from "./app-service-routes.ts";
import { metricRoutes } from "./metric-routes.ts";
import { userRoutes } from "./user-routes.ts";
import { usageRoutes } from "./usage-routes.ts";
import { watchRoutes } from "./watch-routes.ts";
import { validatorCompiler } from "./validate.ts";

export interface ApiOptions extends Tokens {
  service: ClusterService;
  /** Absent where the platform makes no backups. */
  backups?: BackupService;
  /** Absent where the platform restores nothing. */
  inspections?: InspectionService;
  /** Absent where the platform tells nobody of events. */
  notifications?: NotificationService;
  /** Absent where the platform exports nothing. */
  exports?: ExportService;
  /** Absent where the platform imports nothing. */
  imports?: ImportService;
  /** Absent where certificates are another's to get. */
  certificates?: CertificateService;
  fleet?: FleetService;
  /** Where tokens of people are made and revoked through the API. */
  namedTokens?: NamedTokens;
  audit?: AuditLog;
  /** Asks for a viewer's token at `/metrics`. */
  metricsNeedToken?: boolean;
  /**
   * Whose `X-Forwarded-For` is believed, for the audit log and the limit of sign-ins: that of these addresses and networks, or anybody's, where
   * nobody but a proxy of ours reaches the port.
   */
  trustProxy?: boolean | readonly string[];
  routeFeed: RouteFeedSource;
  host: string;
  /** 0: any free port. */
  port: number;
  metrics: Registry;
  logger: Logger;
  /** Called once the request to stop the cluster has been answered. Without it there is no such call. */
  onShutdown?: () => void;
}

const BODY_LIMIT = 1024 * 1024;
/** A client that is slower to send its whole request is cut off, so that it cannot hold a connection for nothing. */
const REQUEST_TIMEOUT_MS = 30_000;

/** Serves the controller's HTTP API. docs/api.md is for its users. */
export async function startApi(options: ApiOptions): Promise<{ url: string; close(): Promise<void> }> {
  const app = await buildApi(options);
  const close = gentleClose(app);
  const url = await app.listen({ host: options.host, port: options.port });
  return { url, close };
}

function trusted(proxies: ApiOptions["trustProxy"] = false): boolean | string[] {
  return typeof proxies === "boolean" ? proxies : proxies.length > 0 && [...proxies];
}

export async function buildApi(options: ApiOptions): Promise<Api> {
  const { service, logger } = options;
  const app = fastify({
    logger: false,
    trustProxy: trusted(options.trustProxy),
    bodyLimit: BODY_LIMIT,
    requestTimeout: REQUEST_TIMEOUT_MS,
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 256 },
  }).withTypeProvider<ZodTypeProvider>();
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(() => JSON.stringify);
  registerBodyParsing(app);
  registerErrorHandling(app, logger);
  const authentication = registerAuthentication(app, {
    actorOf: (digest) => options.namedTokens?.actorOf(digest),
    ...options,
  });
  registerAuthorization(app, (name) => service.getTenant(name).catch(absentIfNotFound));
  if (options.audit) registerAudit(app, options.audit, looking(options));
  app.addHook("onResponse", async (request, reply) => {
    const { method, routeOptions } = request;
    logger.debug({ method, route: routeOptions.url, status: reply.statusCode, ms: reply.elapsedTime }, "request");
  });

  const stopping = new AbortController();
  app.addHook("preClose", async () => stopping.abort());

  await registerDocument(app);
  const context = { service, sendLines: lineSender(stopping.signal, logger) };
  openRoutes(app, options.metrics, options.metricsNeedToken);
  accessRoutes(app, context, options.namedTokens, options.audit);
  accountRoutes(app, options.console);
  tenantRoutes(app, context);
  userRoutes(app, context);
  appServiceRoutes(app, context);
  metricRoutes(app, context);
  configRoutes(app, context);
  watchRoutes(app, context);
  onboardingRoutes(app, context);
  databaseRoutes(app, context);
  renameRoutes(app, context);
  deletedRoutes(app, context);
  usageRoutes(app, context);
  historyRoutes(app, context);
  quotaRoutes(app, context);
  adminAccessRoutes(app, context);
  backupRoutes(app, context, options.backups);
  inspectionRoutes(app, options.inspections);
  notificationRoutes(app, options.notifications);
  importRoutes(app, options.imports);
  certificateRoutes(app, context, options.certificates);
  exportRoutes(app, options.exports, stopping.signal);
  fleetRoutes(app, options.fleet);
  shardRoutes(app, context);
  clusterRoutes(app, context, options.onShutdown);
  if (options.console) {
    await sessionRoutes(app, options.console, (token) => authentication.personOf(token));
    await consoleFiles(app, options.console.hosts);
  }
  routeFeedRoutes(app, context, options.routeFeed);
  app.get(
    "/v1/openapi.json",
    {
      schema: {
        operationId: "getOpenApi",
        summary: "This document",
        tags: ["cluster"],
        response: { 200: z.looseObject({ openapi: z.string() }).describe("OpenAPI 3.1."), ...failures() },
      },
    },
    async () => app.swagger() as { openapi: string },
  );
  await app.ready();
  return app;
}

function absentIfNotFound(error: unknown): undefined {
  if (error instanceof UserError && error.code === "NotFound") return undefined;
  throw error;
}

/** At the wishes that requests change. */
function looking({ service, fleet }: ApiOptions): Look {
  return async (kind, name) => {
    if (kind === "tenants") {
      const { spec, metadata } = await service.getTenant(name);
      return snapshotOf(spec, { name: metadata.name, deletionTimestamp: metadata.deletionTimestamp });
    }
    if (kind === "shards") return snapshotOf((await service.getShard(name)).shard.spec);
    return fleet && snapshotOf((await fleet.fleet()).spec);
  };
}

async function registerDocument(app: Api): Promise<void> {
  // Answers may gain fields; only requests refuse the unknown.
  const zodToJsonConfig: Parameters<typeof createJsonSchemaTransform>[0]["zodToJsonConfig"] = {
    override: ({ zodSchema, jsonSchema }) => {
      if (zodSchema instanceof z.ZodObject && !zodSchema.def.catchall) delete jsonSchema.additionalProperties;
    },
  };
  await app.register(fastifySwagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "synapse-shards",
        version: "1",
        description: "Places, moves and upgrades Matrix homeservers (tenants) on shared processes (shards).",
        license: { name: "AGPL-3.0-or-later", identifier: "AGPL-3.0-or-later" },
      },
      components: {
        securitySchemes: {
          apiToken: { type: "http", scheme: "bearer", description: "The token of people and of the CLI." },
          gatewayToken: { type: "http", scheme: "bearer", description: "The token of gateways." },
        },
      },
      security: [{ apiToken: [] }],
    },
    transform: createJsonSchemaTransform({ zodToJsonConfig }),
    transformObject: createJsonSchemaTransformObject({ zodToJsonConfig }),
  });
}
