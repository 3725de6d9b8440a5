/**
 * What of a homeserver its administrators reach where their entrance is open: paths of Synapse's admin API, and those of the client API with
 * which an admin UI signs in. All else is refused, also what a newer release adds, until it is classed here (docs/admin-access.md).
 */

/** Methods, and a path in which `*` stands for one segment. */
const THROUGH = `
GET /_synapse/admin/v1/server_version
GET /_synapse/admin/v1/whois/*
GET /_synapse/admin/v1/username_available
GET /_synapse/admin/v2/users
GET /_synapse/admin/v3/users
GET,PUT /_synapse/admin/v2/users/*
GET,POST /_synapse/admin/v2/users/*/devices
GET,PUT,DELETE /_synapse/admin/v2/users/*/devices/*
POST /_synapse/admin/v2/users/*/delete_devices
GET,PUT /_synapse/admin/v1/users/*/admin
GET /_synapse/admin/v1/users/*/accountdata
GET /_synapse/admin/v1/users/*/joined_rooms
GET /_synapse/admin/v1/users/*/memberships
GET /_synapse/admin/v1/users/*/pushers
GET /_synapse/admin/v1/users/*/sent_invite_count
GET /_synapse/admin/v1/users/*/cumulative_joined_room_count
GET,DELETE /_synapse/admin/v1/users/*/media
GET /_synapse/admin/v1/users/*/override_ratelimit
POST /_synapse/admin/v1/users/*/login
POST,DELETE /_synapse/admin/v1/users/*/shadow_ban
POST /_synapse/admin/v1/users/*/_allow_cross_signing_replacement_without_uia
POST /_synapse/admin/v1/deactivate/*
POST /_synapse/admin/v1/reset_password/*
PUT /_synapse/admin/v1/suspend/*
POST /_synapse/admin/v1/account_validity/validity
GET,PUT /_synapse/admin/v1/experimental_features/*
GET /_synapse/admin/v1/auth_providers/*/users/*
GET /_synapse/admin/v1/threepid/*/users/*
POST /_synapse/admin/v1/user/*/redact
GET /_synapse/admin/v1/user/redact_status/*
POST /_synapse/admin/v1/user/*/media/quarantine
GET /_synapse/admin/v1/rooms
GET,DELETE /_synapse/admin/v1/rooms/*
DELETE /_synapse/admin/v2/rooms/*
GET /_synapse/admin/v2/rooms/*/delete_status
GET /_synapse/admin/v2/rooms/delete_status/*
GET /_synapse/admin/v1/rooms/*/members
GET /_synapse/admin/v1/rooms/*/state
GET /_synapse/admin/v1/rooms/*/messages
GET /_synapse/admin/v1/rooms/*/hierarchy
GET /_synapse/admin/v1/rooms/*/timestamp_to_event
GET /_synapse/admin/v1/rooms/*/context/*
GET,PUT /_synapse/admin/v1/rooms/*/block
GET,DELETE /_synapse/admin/v1/rooms/*/forward_extremities
POST /_synapse/admin/v1/rooms/*/make_room_admin
POST /_synapse/admin/v1/join/*
GET /_synapse/admin/v1/room/*/media
POST /_synapse/admin/v1/room/*/media/quarantine
POST /_synapse/admin/v1/quarantine_media/*
GET,DELETE /_synapse/admin/v1/media/*/*
POST /_synapse/admin/v1/media/quarantine/*/*
POST /_synapse/admin/v1/media/unquarantine/*/*
GET /_synapse/admin/v1/media/quarantine_changes
POST /_synapse/admin/v1/media/protect/*
POST /_synapse/admin/v1/media/unprotect/*
POST /_synapse/admin/v1/media/delete
POST /_synapse/admin/v1/media/*/delete
POST /_synapse/admin/v1/purge_media_cache
POST /_synapse/admin/v1/purge_history/*
POST /_synapse/admin/v1/purge_history/*/*
GET /_synapse/admin/v1/purge_history_status/*
GET /_synapse/admin/v1/event_reports
GET,DELETE /_synapse/admin/v1/event_reports/*
GET /_synapse/admin/v1/user_reports
GET,DELETE /_synapse/admin/v1/user_reports/*
GET /_synapse/admin/v1/fetch_event/*
GET /_synapse/admin/v1/registration_tokens
POST /_synapse/admin/v1/registration_tokens/new
GET,PUT,DELETE /_synapse/admin/v1/registration_tokens/*
POST /_synapse/admin/v1/send_server_notice
PUT /_synapse/admin/v1/send_server_notice/*
GET /_synapse/admin/v1/federation/destinations
GET /_synapse/admin/v1/federation/destinations/*
GET /_synapse/admin/v1/federation/destinations/*/rooms
POST /_synapse/admin/v1/federation/destinations/*/reset_connection
GET /_synapse/admin/v1/statistics/users/media
GET /_synapse/admin/v1/statistics/database/rooms
GET /_synapse/admin/v1/scheduled_tasks
GET /_synapse/admin/v1/background_updates/enabled
GET /_synapse/admin/v1/background_updates/status
GET /_matrix/client/versions
GET /_matrix/client/v1/auth_metadata
GET /_matrix/client/unstable/org.matrix.msc2965/auth_metadata
GET,POST /_matrix/client/r0/login
GET,POST /_matrix/client/v3/login
GET /_matrix/client/r0/login/sso/redirect
GET /_matrix/client/v3/login/sso/redirect
GET /_matrix/client/v3/login/sso/redirect/*
POST /_matrix/client/r0/logout
POST /_matrix/client/v3/logout
POST /_matrix/client/v3/refresh
GET /_matrix/client/v3/account/whoami
GET /_matrix/client/v3/capabilities
GET /_matrix/client/v3/profile/*
GET,PUT /_matrix/client/v3/user/*/account_data/io.element.synapse.admin_client_config
GET /_matrix/client/v3/publicRooms
GET,PUT /_matrix/client/v3/directory/list/room/*
GET /_matrix/client/v1/media/config
GET /_matrix/client/v1/media/download/*/*
GET /_matrix/client/v1/media/thumbnail/*/*
POST /_matrix/media/v3/upload
`;

/** What a tenant's administrators do not get, each with the wall that it would break: methods and path, then why. */
export const REFUSED = `
GET,POST /_synapse/admin/v1/register | it asks for the registration secret, which is the platform's, instead of an administrator's token
POST /_synapse/admin/v1/background_updates/enabled | background updates are the release's work on the database; a tenant that stops them cannot be brought to another release
POST /_synapse/admin/v1/background_updates/start_job | it begins work on everything in the database, in the shard, which no gateway can hold back
GET /_synapse/admin/v1/search_users/* | it lists all users that fit in one piece, and the hashes of their passwords with them: /v2/users?name= lists them in parts
POST,DELETE /_synapse/admin/v1/users/*/override_ratelimit | rate limits are the platform's: a tenant may make them narrower in its configuration, not wider
`;

interface Entry {
  methods: readonly string[];
  segments: readonly string[];
  /** Undefined: it may pass. */
  why?: string;
}

/** A list is made and sent in one piece, during which the shard does nothing else. */
const MOST_LISTED = 1_000;
const TOO_LONG = `a list has ${MOST_LISTED} entries at most: ask for it in parts (limit)`;
/** Lists whose parts a homeserver makes only where it is asked for parts: without a limit, or with 0, they are whole. */
const WHOLE_UNLESS_LIMITED: ReadonlySet<string> = new Set(["/_matrix/client/v3/publicRooms"]);

const ENTRIES: readonly Entry[] = [...entriesOf(REFUSED), ...entriesOf(THROUGH)];
/** By the number of segments: of some hundred entries, a few are looked at. */
const BY_LENGTH = Map.groupBy(ENTRIES, ({ segments }) => segments.length);

function entriesOf(table: string): Entry[] {
  return table
    .trim()
    .split("\n")
    .map((line) => {
      const [head = "", why] = line.split(" | ");
      const [methods = "", path = ""] = head.split(" ");
      return { methods: methods.split(","), segments: path.slice(1).split("/"), ...(why === undefined ? {} : { why }) };
    });
}

/** What is at most reached: `pass`, or why not. `unknown` is of the admin API, `elsewhere` of anything else. */
export type AdminPath = { kind: "pass" } | { kind: "refused"; why: string } | { kind: "unknown" | "elsewhere" };

/**
 * Only a path that is spelled as in the tables is looked up, segment by segment: none that a server would have to decode or resolve to get
 * there. So no other spelling leads past an entry.
 */
export function adminPathOf(method: string, target: string): AdminPath {
  const mark = target.indexOf("?");
  const segments = (mark === -1 ? target : target.slice(0, mark)).slice(1).split("/");
  const other: AdminPath = { kind: segments[0] === "_synapse" ? "unknown" : "elsewhere" };
  if (!segments.every(isPlain)) return other;
  const found = (BY_LENGTH.get(segments.length) ?? []).filter(
    (entry) => accepts(entry, method) && entry.segments.every((own, i) => own === "*" || own === segments[i]),
  );
  // A browser asks about a path before it uses any method there.
  const refused = method === "OPTIONS" ? undefined : found.find(({ why }) => why !== undefined);
  if (refused?.why !== undefined) return { kind: "refused", why: refused.why };
  if (found.length === 0) return other;
  const needsLimit = method !== "OPTIONS" && WHOLE_UNLESS_LIMITED.has(mark === -1 ? target : target.slice(0, mark));
  return asksForMore(mark === -1 ? "" : target.slice(mark), needsLimit)
    ? { kind: "refused", why: TOO_LONG }
    : { kind: "pass" };
}

/** As Twisted and Python read a query: with semicolons as well, and numbers such as 9_999, which are refused here as no numbers. */
function asksForMore(query: string, needsLimit: boolean): boolean {
  const limits = query === "" ? [] : new URLSearchParams(query.replaceAll(";", "&")).getAll("limit");
  if (needsLimit && (limits.length === 0 || limits.some((limit) => Number(limit) === 0))) return true;
  return limits.some((limit) => !/^\d+$/.test(limit) || Number(limit) > MOST_LISTED);
}

function accepts({ methods }: Entry, method: string): boolean {
  return method === "OPTIONS" || methods.includes(method === "HEAD" ? "GET" : method);
}

/** Not one that is empty, or that some server resolves. */
function isPlain(segment: string): boolean {
  return segment !== "" && !/^(?:\.|%2e){1,2}$/i.test(segment) && !segment.includes("\\");
}
