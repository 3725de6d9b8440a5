import { Agent, request } from "undici";

/** Names below .localhost are this machine; the certificate is of the cluster's own authority. */
const agent = new Agent({
  connect: {
    rejectUnauthorized: false,
    lookup: (_host, options, done) =>
      options.all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4),
  },
});

export interface Answer {
  status: number;
  /** The gateway's own word, where it is its answer. */
  code: string | undefined;
  json: any;
}

/** What an admin UI in a browser does: asks the homeserver at an address, with a token, as a page of an origin. */
export class Administrator {
  readonly address: string;
  readonly origin: string | undefined;
  token: string | undefined;

  constructor(address: string, origin?: string, token?: string) {
    this.address = address;
    this.origin = origin;
    this.token = token;
  }

  async ask(method: string, path: string, body?: object): Promise<Answer> {
    const answer = await request(new URL(path, this.address), {
      method,
      dispatcher: agent,
      headers: {
        ...(this.origin === undefined ? {} : { origin: this.origin }),
        ...(this.token === undefined ? {} : { authorization: `Bearer ${this.token}` }),
        ...(body ? { "content-type": "application/json" } : {}),
      },
      body: body ? JSON.stringify(body) : null,
    });
    const text = await answer.body.text();
    const code = answer.headers["x-synapse-shards-error"];
    const json: unknown = text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : undefined;
    return { status: answer.statusCode, code: typeof code === "string" ? code : undefined, json };
  }

  async signIn(user: string, password: string): Promise<Answer> {
    const identifier = { type: "m.id.user", user };
    const answer = await this.ask("POST", "/_matrix/client/v3/login", {
      type: "m.login.password",
      identifier,
      password,
    });
    this.token = answer.json?.access_token;
    return answer;
  }
}

/** What Ketesa asks for on its pages, of a user and of a room; but for the sizes of rooms, which Synapse cannot tell of a new database. */
export function pagesOf(user: string, room: string): string[] {
  const [u, r] = [encodeURIComponent(user), encodeURIComponent(room)];
  const admin = [
    "v1/server_version",
    "v2/users?deactivated=false&guests=false&from=0&limit=10&order_by=name&dir=f",
    "v3/users?from=0&limit=10&order_by=name&dir=f",
    "v1/rooms?from=0&limit=10&order_by=name&dir=f",
    "v1/registration_tokens",
    "v1/event_reports?from=0&limit=10&dir=b",
    "v1/user_reports?from=0&limit=10&dir=b",
    "v1/federation/destinations?from=0&limit=10&order_by=destination&dir=f",
    "v1/statistics/users/media?from=0&limit=10&order_by=media_length&dir=b",
    "v1/scheduled_tasks",
    "v1/username_available?username=somebody-new",
    `v2/users/${u}`,
    `v2/users/${u}/devices`,
    `v1/users/${u}/admin`,
    `v1/users/${u}/joined_rooms`,
    `v1/users/${u}/memberships`,
    `v1/users/${u}/pushers`,
    `v1/users/${u}/media?from=0&limit=10`,
    `v1/users/${u}/accountdata`,
    `v1/users/${u}/override_ratelimit`,
    `v1/experimental_features/${u}`,
    `v1/whois/${u}`,
    `v1/rooms/${r}`,
    `v1/rooms/${r}/members`,
    `v1/rooms/${r}/state`,
    `v1/rooms/${r}/block`,
    `v1/rooms/${r}/forward_extremities`,
    `v1/rooms/${r}/hierarchy?limit=10`,
    `v1/rooms/${r}/messages?limit=10&dir=b`,
    `v1/room/${r}/media`,
  ];
  const client = [
    "versions",
    "v3/login",
    "v3/account/whoami",
    `v3/profile/${u}`,
    "v3/publicRooms?limit=10",
    "v3/capabilities",
  ];
  return [...admin.map((path) => `/_synapse/admin/${path}`), ...client.map((path) => `/_matrix/client/${path}`)];
}
