import { Document, isMap, isSeq } from "yaml";
import { z } from "zod";
import { parseBounded, YamlProblem } from "./bounded-yaml.ts";
import { UserError } from "./errors.ts";
import { describeIssues } from "./validation.ts";

/** Whether an application service is there: how long its answer took, or what is wrong, in words. */
export const AppServicePingSchema = z.union([
  z.object({ milliseconds: z.int().min(0) }),
  z.object({ problem: z.string() }),
]);
export type AppServicePing = z.infer<typeof AppServicePingSchema>;

const text = z.string().min(1).max(2048);
const NamespaceSchema = z.array(z.looseObject({ regex: text, exclusive: z.boolean().default(true) }));

/** A bridge's or bot's registration, as in the file that Synapse reads; a shard checks what is not named here. */
const RegistrationSchema = z.looseObject({
  id: text.max(255),
  url: z.union([text, z.null()]).default(null),
  as_token: text,
  hs_token: text,
  sender_localpart: text.max(255),
  namespaces: z.looseObject({
    users: NamespaceSchema.optional(),
    aliases: NamespaceSchema.optional(),
    rooms: NamespaceSchema.optional(),
  }),
});
export type Registration = z.output<typeof RegistrationSchema>;

/** Where registrations are in a tenant's configuration. */
export const APP_SERVICES = ["synapse_shards", "app_services"] as const;

/**
 * @param source the text of a registration file; empty: none
 * @param changes keys that win over the file's
 * @param known of the tenant: the one with the same id lends its tokens, and all else where there is no file
 * @param newToken for tokens that nobody has given
 * @throws UserError InvalidInput
 */
export function parseRegistration(
  source: string,
  changes: object,
  known: readonly Registration[],
  newToken: () => string,
): Registration {
  const read: unknown = documentOf(source, "the registration").toJS() ?? {};
  const given: Record<string, unknown> = { ...(typeof read === "object" ? read : {}), ...changes };
  const present = known.find(({ id }) => id === given["id"]);
  const tokens = { as_token: present?.as_token ?? newToken(), hs_token: present?.hs_token ?? newToken() };
  const whole = { namespaces: {}, ...tokens, ...(source === "" ? present : {}), ...given };
  const found = RegistrationSchema.safeParse(whole);
  if (found.success) return found.data;
  throw new UserError("InvalidInput", `the registration: ${describeIssues(found.error).join("; ")}`);
}

/** @throws UserError InvalidInput where the configuration cannot be read */
export function registrationsIn(config: string): Registration[] {
  const { index: _, services } = placeIn(documentOf(config, "the configuration"), undefined);
  return services.map((service) => RegistrationSchema.parse({ namespaces: {}, ...service }));
}

/** The configuration with it, in the place of the one with the same id; all else of the text stays. @throws UserError InvalidInput */
export function withRegistration(config: string, registration: Registration): string {
  const document = documentOf(config, "the configuration");
  const { index, services } = placeIn(document, registration.id);
  if (!isMap(document.contents)) document.contents = document.createNode({}) as never;
  if (!isMap(document.get(APP_SERVICES[0]))) document.set(APP_SERVICES[0], document.createNode({}));
  if (services.length === 0) document.setIn(APP_SERVICES, document.createNode([registration]));
  else document.setIn([...APP_SERVICES, index ?? services.length], document.createNode(registration));
  return document.toString({ lineWidth: 0 });
}

/** @returns undefined where there is none with that id @throws UserError InvalidInput */
export function withoutRegistration(config: string, id: string): string | undefined {
  const document = documentOf(config, "the configuration");
  const { index, services } = placeIn(document, id);
  if (index === undefined) return undefined;
  if (services.length > 1) document.deleteIn([...APP_SERVICES, index]);
  else document.deleteIn(APP_SERVICES);
  const rest = document.get(APP_SERVICES[0]);
  if (isMap(rest) && rest.items.length === 0) document.delete(APP_SERVICES[0]);
  return document.toString({ lineWidth: 0 });
}

function documentOf(source: string, what: string): Document {
  try {
    return parseBounded(source).document ?? new Document({});
  } catch (error) {
    if (error instanceof YamlProblem) throw new UserError("InvalidInput", `${what}: ${error.message}`);
    throw error;
  }
}

function placeIn(document: Document, id: string | undefined): { index?: number; services: object[] } {
  const list = isMap(document.contents) ? document.getIn(APP_SERVICES) : undefined;
  if (list === undefined || list === null) return { services: [] };
  if (!isSeq(list)) throw new UserError("InvalidInput", `${APP_SERVICES.join(".")} of the configuration is no list`);
  const services = list.toJSON() as object[];
  const index = services.findIndex((service) => (service as { id?: unknown } | null)?.id === id);
  return index === -1 ? { services } : { index, services };
}
