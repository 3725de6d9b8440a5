import { z } from "zod";
import { LONGEST_PASSWORD, MOST_USERS_AT_ONCE, type UserChange, type UserSummary } from "../model/user.ts";
import { failures, type Api, type RouteContext } from "./api.ts";
import { wholeNumber } from "./schemas.ts";

const UserSchema = z
  .object({
    userId: z.string(),
    displayName: z.string().optional(),
    admin: z.boolean(),
    deactivated: z.boolean(),
    locked: z.boolean(),
    appservice: z.boolean().describe("Of an application service: a bridge's, or a bot."),
    createdAt: z.string().optional(),
    lastSeen: z.string().optional().describe("The day on which it was last used, in UTC."),
  })
  .meta({ id: "User" }) satisfies z.ZodType<UserSummary>;

const ChangedSchema = z.object({
  userId: z.string(),
  woken: z.boolean().describe("Whether the tenant slept, and was woken for it."),
});

const Params = z.object({ name: z.string() });
export const UserParams = Params.extend({
  user: z.string().describe("The part of its id before the colon, or all of it, encoded for a path."),
});
const tags = ["tenants"];

const ResetPasswordBody = z.strictObject({
  password: z.string().min(1).max(LONGEST_PASSWORD),
  logoutDevices: z.boolean().default(true).describe("End its sessions."),
});
const DeactivateBody = z.strictObject({
  erase: z.boolean().default(false).describe("Hide what it wrote from those who join later."),
});
const MakeAdminBody = z.strictObject({ admin: z.boolean().default(true).describe("false: takes it back.") });

/** The accounts of a tenant. */
export function userRoutes(app: Api, { service }: RouteContext): void {
  app.get(
    "/v1/tenants/:name/users",
    {
      config: { access: "operator" },
      schema: {
        operationId: "listUsers",
        summary: "The tenant's users without guests, by id; a tenant that sleeps goes on sleeping",
        tags,
        params: Params,
        querystring: z.object({
          search: z.string().max(255).optional().describe("Part of the id or of the display name."),
          offset: wholeNumber(1_000_000_000).default(0),
          limit: wholeNumber(MOST_USERS_AT_ONCE).default(100),
        }),
        response: {
          200: z
            .object({ items: z.array(UserSchema), total: z.int().describe("With those beyond the limit.") })
            .describe("The users."),
          ...failures(404, 409, 422, 503),
        },
      },
    },
    async ({ params, query }) => service.listUsers(params.name, query),
  );

  const change = <Body extends z.ZodType>(
    path: string,
    operationId: string,
    summary: string,
    body: Body,
    changeOf: (body: z.output<Body>) => UserChange,
  ) =>
    app.post(
      `/v1/tenants/:name/users/:user/${path}`,
      {
        schema: {
          operationId,
          summary,
          tags,
          params: UserParams,
          body,
          response: {
            200: ChangedSchema.describe("The user who was changed."),
            ...failures(404, 409, 422, 503, 504),
          },
        },
      },
      async ({ params, body: asked }) =>
        service.changeUser(params.name, params.user, changeOf(asked as z.output<Body>)),
    );
  change(
    "reset-password",
    "resetPassword",
    "Gives a user of the tenant another password; wakes the tenant, if it sleeps",
    ResetPasswordBody,
    ({ password, logoutDevices }) => ({ kind: "password", password, logoutDevices }),
  );
  change(
    "deactivate",
    "deactivateUser",
    "Deactivates a user of the tenant for good; wakes the tenant, if it sleeps",
    DeactivateBody,
    ({ erase }) => ({ kind: "deactivate", erase }),
  );
  change(
    "make-admin",
    "makeAdmin",
    "Makes a user an administrator of the tenant's homeserver, or takes it back; wakes the tenant, if it sleeps",
    MakeAdminBody,
    ({ admin }) => ({ kind: "admin", admin }),
  );
}
