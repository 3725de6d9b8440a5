import { z } from "zod";
import { failures, type Api, type RouteContext } from "../api.ts";
import type { AuditLog, ChainVerification } from "../audit.ts";
import { auditWithin } from "./limited-views.ts";
import { grantOf, GrantFields, PrincipalName, refineGrant, RoleSchema } from "../../model/grant.ts";
import type { NamedTokens } from "./named-tokens.ts";
import { wholeNumber } from "../schemas.ts";

const MOST_ENTRIES = 100_000;
const DAY_MS = 86_400_000;
const NDJSON = "application/x-ndjson";
const tags = ["access"];
const config = { access: "admin" } as const;

const TokenSchema = z.object({
  name: z.string(),
  ...GrantFields,
  createdAt: z.string().optional().describe("ISO 8601, UTC."),
  expiresAt: z.string().optional().describe("Absent: it does not expire."),
  lastUsedAt: z.string().optional().describe("Noted every five minutes at most; absent: never."),
});

/** What is good for longer is better without an end. */
const LONGEST_DAYS = 3660;

const CreateTokenBody = z
  .strictObject({
    name: PrincipalName,
    ...GrantFields,
    expiresInDays: z
      .number()
      .min(0.001)
      .max(LONGEST_DAYS)
      .optional()
      .describe("For how long it is good; absent: until it is revoked."),
  })
  .superRefine(refineGrant)
  .meta({ id: "CreateToken" });

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
  omitted: z
    .int()
    .optional()
    .describe("How many more were refused in that minute, of the same caller, or of all that nobody knows."),
  previous: z.string().optional().describe("The SHA-256 of the line before it."),
});

const VerificationSchema = z
  .object({
    entries: z.int(),
    head: z.string().describe("The SHA-256 of the newest line."),
    unchained: z.int().describe("Entries from before there was a chain."),
    breaks: z
      .array(z.object({ entry: z.int().describe("0: of none alone."), time: z.string(), problem: z.string() }))
      .describe("Where an entry was changed, removed or put in."),
  })
  .meta({ id: "AuditVerification" }) satisfies z.ZodType<ChainVerification>;

/** Who may use the API, and who did. */
export function accessRoutes(
  app: Api,
  { service, sendLines }: RouteContext,
  tokens?: NamedTokens,
  audit?: AuditLog,
): void {
  app.get(
    "/v1/whoami",
    {
      schema: {
        operationId: "whoAmI",
        summary: "Who asks: the name and the role, and the tenants of a tenant admin",
        tags,
        response: {
          200: z.object({ name: z.string(), ...GrantFields }).describe("Who asks."),
          ...failures(),
        },
      },
    },
    async ({ actor }) => ({ name: actor!.name, ...grantOf(actor!) }),
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
        querystring: z.object({ tail: wholeNumber(MOST_ENTRIES).optional().describe("The newest entries only.") }),
        response: {
          200: { description: "One entry a line.", content: { [NDJSON]: { schema: AuditEntrySchema } } },
          ...failures(422),
        },
      },
    },
    async ({ query, scope, actor }, reply) => {
      const entries = auditWithin(service, { scope, actor }, audit.read(scope.isAll ? query : { tail: MOST_ENTRIES }));
      await sendLines(reply, {
        contentType: NDJSON,
        lines: () => lines(scope.isAll ? entries : newest(entries, query)),
      });
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
        summary: "The tokens of people and machines, by name, without the tokens themselves",
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
        body: CreateTokenBody,
        response: {
          201: z
            .object({ name: z.string(), ...GrantFields, expiresAt: z.string().optional(), token: z.string() })
            .describe("The new token."),
          ...failures(409, 422),
        },
      },
    },
    async ({ body: { name, expiresInDays, ...grant } }, reply) => {
      const expiresAt =
        expiresInDays === undefined ? undefined : new Date(Date.now() + expiresInDays * DAY_MS).toISOString();
      const terms = { ...grantOf(grant), ...(expiresAt === undefined ? {} : { expiresAt }) };
      return reply.code(201).send({ name, ...terms, token: tokens.create(name, grant.role, terms) });
    },
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

/** The tail of those that may be seen, and not what may be seen of the tail: how much others do is not to be told. */
async function* newest<T>(entries: AsyncIterable<T>, { tail = MOST_ENTRIES }: { tail?: number }): AsyncGenerator<T> {
  const kept: T[] = [];
  for await (const entry of entries) {
    kept.push(entry);
    if (kept.length > 2 * tail + 1000) kept.splice(0, kept.length - tail);
  }
  if (tail > 0) yield* kept.slice(-tail);
}

async function* lines(entries: AsyncIterable<unknown>): AsyncGenerator<string> {
  for await (const entry of entries) yield JSON.stringify(entry);
}
