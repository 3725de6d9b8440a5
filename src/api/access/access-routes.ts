import { z } from "zod";
import { failures, type Api, type RouteContext } from "../api.ts";
import type { ChainVerification } from "../audit.ts";
import type { AuditLog } from "../audit.ts";
import { RoleSchema, TokenName, type NamedTokens } from "./named-tokens.ts";
import { wholeNumber } from "../schemas.ts";

const NDJSON = "application/x-ndjson";
const tags = ["access"];
const config = { access: "admin" } as const;

const TokenSchema = z.object({
  name: z.string(),
  role: RoleSchema,
  createdAt: z.string().describe("ISO 8601, UTC."),
});

const AuditEntrySchema = z.object({
  time: z.string(),
  actor: z.string().nullable(),
  role: RoleSchema.nullable(),
  action: z.string(),
  method: z.string(),
  path: z.string(),
  status: z.int(),
  client: z.string(),
  changes: z
    .array(z.object({ field: z.string(), before: z.unknown(), after: z.unknown() }))
    .optional()
    .describe(
      "What it changed of the object's wishes, such as release, or config.max_upload_size; secrets are hidden.",
    ),
  previous: z.string().optional().describe("The SHA-256 of the line before it."),
});

const VerificationSchema = z
  .object({
    entries: z.int(),
    head: z.string().describe("The SHA-256 of the newest line."),
    unchained: z.int().describe("Entries from before there was a chain."),
    breaks: z
      .array(z.object({ entry: z.int(), time: z.string(), problem: z.string() }))
      .describe("Where an entry was changed, removed or put in."),
  })
  .meta({ id: "AuditVerification" }) satisfies z.ZodType<ChainVerification>;

/** Who may use the API, and who did. */
export function accessRoutes(app: Api, { sendLines }: RouteContext, tokens?: NamedTokens, audit?: AuditLog): void {
  app.get(
    "/v1/whoami",
    {
      schema: {
        operationId: "whoAmI",
        summary: "The name and role of the token",
        tags,
        response: {
          200: z.object({ name: z.string(), role: RoleSchema }).describe("The token's."),
          ...failures(),
        },
      },
    },
    async ({ actor }) => ({ name: actor!.name, role: actor!.role }),
  );
  if (tokens) tokenRoutes(app, tokens);
  if (!audit) return;
  app.get(
    "/v1/audit",
    {
      config,
      schema: {
        operationId: "readAudit",
        summary: "Who changed what, and who was refused, oldest first, one JSON object a line",
        tags,
        querystring: z.object({ tail: wholeNumber(100_000).optional().describe("The newest entries only.") }),
        response: {
          200: { description: "One entry a line.", content: { [NDJSON]: { schema: AuditEntrySchema } } },
          ...failures(422),
        },
      },
    },
    async ({ query }, reply) => {
      await sendLines(reply, { contentType: NDJSON, lines: () => lines(audit.read(query)) });
    },
  );
  app.get(
    "/v1/audit/verification",
    {
      config,
      schema: {
        operationId: "verifyAudit",
        summary: "Whether what is kept of the audit log is what was written",
        tags,
        response: { 200: VerificationSchema.describe("What a check of its chain of hashes found."), ...failures() },
      },
    },
    () => audit.verify(),
  );
}

function tokenRoutes(app: Api, tokens: NamedTokens): void {
  app.get(
    "/v1/tokens",
    {
      config,
      schema: {
        operationId: "listTokens",
        summary: "The tokens of people, by name, without the tokens themselves",
        tags,
        response: { 200: z.object({ items: z.array(TokenSchema) }).describe("The tokens."), ...failures() },
      },
    },
    async () => ({ items: tokens.list() }),
  );
  app.post(
    "/v1/tokens",
    {
      config,
      schema: {
        operationId: "createToken",
        summary: "Makes a token with a name and a role; the answer is the only place that has it",
        tags,
        body: z.strictObject({ name: TokenName, role: RoleSchema }),
        response: {
          201: z.object({ name: z.string(), role: RoleSchema, token: z.string() }).describe("The new token."),
          ...failures(409, 422),
        },
      },
    },
    async ({ body: { name, role } }, reply) => reply.code(201).send({ name, role, token: tokens.create(name, role) }),
  );
  app.delete(
    "/v1/tokens/:name",
    {
      config,
      schema: {
        operationId: "revokeToken",
        summary: "Revokes a token at once",
        tags,
        params: z.object({ name: z.string() }),
        response: { 204: z.undefined().describe("It is revoked."), ...failures(404) },
      },
    },
    async ({ params }, reply) => {
      tokens.revoke(params.name);
      return reply.code(204).send();
    },
  );
}

async function* lines(entries: AsyncIterable<unknown>): AsyncGenerator<string> {
  for await (const entry of entries) yield JSON.stringify(entry);
}
