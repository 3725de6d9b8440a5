import { z } from "zod";
import { FINDING_CODES, SEVERITIES, type CheckReport, type FindingCode } from "../model/tenant-check.ts";
import type { TenantDns } from "../model/tenant-dns.ts";
import { failures, type Api, type RouteContext } from "./api.ts";

const TenantDnsSchema = z
  .object({
    serverName: z.string(),
    host: z.string().describe("The homeserver's own host."),
    url: z.string(),
    delegate: z.string().nullable().describe("Where other servers are led to; null: to the server name itself."),
    records: z.array(
      z.object({
        name: z.string(),
        type: z.enum(["A", "AAAA"]),
        value: z.string().describe("Empty where publicAccess.addresses does not say it."),
        purpose: z.string(),
      }),
    ),
    wellKnown: z
      .array(z.object({ url: z.string(), content: z.record(z.string(), z.unknown()) }))
      .describe("What a web site that has the server name serves, or redirects to the same path at the host."),
    srv: z.string().nullable().describe("In place of the file for servers."),
  })
  .meta({ id: "TenantDns" }) satisfies z.ZodType<TenantDns>;

const CheckReportSchema = z
  .object({
    tenant: z.string(),
    serverName: z.string(),
    url: z.string(),
    checkedAt: z.iso.datetime(),
    result: z.enum(SEVERITIES).describe("The worst of the findings."),
    findings: z.array(
      z.object({
        code: z.enum(Object.keys(FINDING_CODES) as FindingCode[]),
        severity: z.enum(SEVERITIES),
        subject: z.string(),
        message: z.string(),
        remedy: z.string().optional().describe("What to do."),
      }),
    ),
  })
  .meta({ id: "TenantCheck" }) satisfies z.ZodType<CheckReport>;

const Params = z.object({ name: z.string() });
const tags = ["tenants"];

export function onboardingRoutes(app: Api, { service }: RouteContext): void {
  app.get(
    "/v1/tenants/:name/dns",
    {
      schema: {
        operationId: "getTenantDns",
        summary: "What has to be published so that clients and other servers find the tenant",
        tags,
        params: Params,
        response: { 200: TenantDnsSchema.describe("Records and files."), ...failures(404) },
      },
    },
    async ({ params }) => service.tenantDns(params.name),
  );

  app.get(
    "/v1/tenants/:name/check",
    {
      // It makes the controller ask around.
      config: { access: "operator" },
      schema: {
        operationId: "checkTenant",
        summary:
          "Looks at the tenant as the world sees it: DNS, delegation, certificates, client API, federation, keys",
        tags,
        params: Params,
        response: { 200: CheckReportSchema.describe("What was found."), ...failures(404) },
      },
    },
    async ({ params }) => service.checkTenant(params.name),
  );
}
