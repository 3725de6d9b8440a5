import { z } from "zod";
import type { CertificateService } from "../controller/service/certificate-service.ts";
import type { CertificateView, SharedCertificates } from "../model/certificates.ts";
import { UserError } from "../model/errors.ts";
import { tenantsWithin } from "./access/limited-views.ts";
import { failures, type Api, type RouteContext } from "./api.ts";

/** How long a gateway's question stays open where there is nothing new: below what it takes for silence. */
const WAIT_MS = 20_000;

const CertificateSchema = z
  .object({
    name: z.string().describe("A host, or *.DOMAIN."),
    tenant: z.string().nullable().describe("Whose name it is; null: of names below the base domain."),
    state: z.enum(["Valid", "Ordering", "Waiting", "Failed", "Ended"]),
    notAfter: z.string().nullable(),
    renewAt: z.string().nullable().describe("When it is to be renewed."),
    problem: z.string().nullable().describe("Why there is no newer one."),
    message: z.string().nullable(),
    retryAt: z.string().nullable(),
  })
  .meta({ id: "Certificate" }) satisfies z.ZodType<CertificateView>;

const SharedSchema = z
  .object({
    stream: z.string(),
    version: z.int(),
    thumbprint: z.string().nullable(),
    names: z.array(z.string()),
    certificates: z.array(z.object({ name: z.string(), certificate: z.string(), key: z.string() })),
  })
  .meta({ id: "SharedCertificates" }) satisfies z.ZodType<SharedCertificates>;

const tags = ["certificates"];

/** @param certificates absent where certificates are another's to get */
export function certificateRoutes(
  app: Api,
  { service: cluster }: Pick<RouteContext, "service">,
  certificates: CertificateService | undefined,
): void {
  const service = (): CertificateService => {
    if (certificates) return certificates;
    throw new UserError(
      "Conflict",
      "this cluster gets no certificates itself: docs/certificates.md says how it does, or who does it in its place",
    );
  };

  app.get(
    "/v1/certificates",
    {
      schema: {
        operationId: "listCertificates",
        summary: "The certificates that the cluster gets for tenants' names, without their keys",
        tags,
        response: { 200: z.object({ items: z.array(CertificateSchema) }).describe("By name."), ...failures(409) },
      },
    },
    async ({ scope }) => {
      const all = service().list();
      if (scope.isAll) return { items: all };
      const tenants = await tenantsWithin(cluster, scope);
      return { items: all.filter(({ tenant }) => tenant !== null && tenants.has(tenant)) };
    },
  );

  app.post(
    "/v1/certificates/:name/renew",
    {
      schema: {
        operationId: "renewCertificate",
        summary: "Has a certificate ordered again, before its time, and whatever failed before",
        tags,
        params: z.object({ name: z.string() }),
        response: { 202: CertificateSchema.describe("As it is now."), ...failures(404, 409) },
      },
    },
    async ({ params }, reply) => reply.code(202).send(await service().renew(params.name)),
  );

  app.get(
    "/v1/gateway/certificates",
    {
      config: { access: "gateway" },
      schema: {
        operationId: "getSharedCertificates",
        summary: "Certificates and keys for gateways; waits for up to 20 seconds where there is nothing new",
        tags: ["gateways"],
        security: [{ gatewayToken: [] }],
        querystring: z.object({
          stream: z.string().max(100).optional(),
          version: z.coerce.number().int().optional().describe("What the gateway knows already."),
        }),
        response: { 200: SharedSchema.describe("What is new."), ...failures(409, 422) },
      },
    },
    async ({ query }, reply) => {
      const { stream, version } = query;
      const known = { ...(stream === undefined ? {} : { stream }), ...(version === undefined ? {} : { version }) };
      return reply.header("cache-control", "no-store").send(await service().shared(known, WAIT_MS));
    },
  );
}
