import { Readable } from "node:stream";
import { expect, it } from "vitest";
import { importHomeserver, type ImportParts } from "../../../src/controller/imports/import.ts";
import { ReservedNames } from "../../../src/controller/tenants/reserved-names.ts";
import { Turns } from "../../../src/controller/turns.ts";
import { UserError } from "../../../src/model/errors.ts";
import { ImportRequestSchema, type OptionVerdict } from "../../../src/model/import.ts";
import type { DatabaseCopies, TenantMediaFiles } from "../../../src/ports/backups.ts";
import type { ConfigReview, ImportSource } from "../../../src/ports/imports.ts";
import type { Tenant } from "../../../src/model/tenant.ts";
import type { Assignment } from "../../../src/ports/shard-control.ts";

const COUNTS = { users: 1, devices: 1, rooms: 1, events: 7, media: 2 };
const CONFIG = `
server_name: clinic.example
macaroon_secret_key: macaroon
registration_shared_secret_path: shared
listeners: []
database: {name: sqlite3, args: {database: homeserver.db}}
media_store_path: /old/media
app_service_config_files: [bridge.yaml]
user_consent: {template_dir: consent, version: "1.0"}
templates: {custom_template_directory: templates}
trusted_key_servers: []
`;

/** What the import does, in order, and a world that can fail. */
function world(
  change: Partial<{
    config: string;
    counts: typeof COUNTS;
    user: string;
    bytes: number;
    review: Partial<ConfigReview>;
  }> = {},
) {
  const done: string[] = [];
  const staged = new Map<string, string>();
  const fail = new Set<string>();
  const step = (name: string) => {
    done.push(name);
    if (fail.delete(name)) throw new UserError("Unavailable", `${name} fails`);
  };
  const texts = new Map([
    ["homeserver.yaml", change.config ?? CONFIG],
    ["clinic.example.signing.key", "ed25519 a_old AAAA\n"],
    ["shared", "shared-secret\n"],
    ["bridge.yaml", "id: bridge"],
  ]);
  let reviewed: Assignment | undefined;
  const source = {
    text: async (path: string) => {
      const found = texts.get(path.replace("/old/", ""));
      if (found === undefined) throw new UserError("InvalidInput", `${path} cannot be read`);
      return found;
    },
    texts: async (path: string) =>
      new Map(path === "consent" ? [["en/1.0.html", "<p>Policy</p>"]] : [["notif.html", "<p>Hello</p>"]]),
    review: async (_release: string, assignment: Assignment) => {
      reviewed = assignment;
      const clean = { config: "taken: true\n", taken: ["synapse_shards"], refused: [], warnings: [], problem: null };
      return { ...clean, ...change.review };
    },
    copySqlite: async () => ({
      counts: COUNTS,
      bytes: 10,
      port: async () => step("port"),
      drop: async () => step("copy dropped"),
    }),
    userOf: async () => change.user,
    async *media(place: unknown) {
      const paths =
        typeof place === "string" ? ["local_content/a", "local_content/b"] : ["local_content/b", "local_content/c"];
      for (const path of paths) yield { path, bytes: change.bytes ?? 5, modifiedAt: 0 };
    },
    openMedia: async (_directory: string, path: string) => (
      step(`read ${path}`),
      Readable.from([Buffer.from("bytes")])
    ),
    mayHaveMedia: async () => true,
  } as unknown as ImportSource;
  const copies = {
    fillBeside: async (_tenant: string, _options: unknown, fill: (into: never) => Promise<void>) => {
      await fill({} as never);
      const facts = { counts: change.counts ?? COUNTS, schemaVersion: 93, schemaCompatVersion: 91 };
      return { ...facts, remarks: ["2 background updates are not finished"] };
    },
    exchange: async () => step("exchange"),
    forget: async () => step("forget"),
    settle: async () => step("settle"),
    inPlace: async () => undefined,
  } as unknown as DatabaseCopies;
  const media = {
    hasStaged: async (_tenant: string, { path }: { path: string }) => staged.has(path),
    stage: async (_tenant: string, path: string, content: AsyncIterable<Uint8Array>) => {
      let text = "";
      for await (const chunk of content) text += Buffer.from(chunk).toString();
      staged.set(path, text);
    },
    openStaged: async (_tenant: string, path: string) => Readable.from([Buffer.from(staged.get(path) ?? "")]),
    admitStaged: async () => step("media admitted"),
  } as unknown as TenantMediaFiles;
  const created: unknown[] = [];
  let secrets: unknown;
  const running = { status: { phase: "Running", provisioned: true } } as Tenant;
  const context = {
    environment: () => ({ publicBaseUrl: "", database: {}, mediaPath: "", federationCaFiles: [], policy: {} }),
    store: {
      get: async () => (created.length > 0 ? running : undefined),
      writeSecret: async (_tenant: string, data: unknown) => void (secrets = data),
    },
    reader: { values: () => [], withStorage: () => undefined },
    databases: { keptData: async () => ({ hasDatabase: false }), drop: async () => step("dropped") },
    clock: { now: () => 0 },
    claims: { conflictWhenAsked: () => undefined },
    deletions: { records: { list: async () => [] }, lock: new Turns(), reserved: new ReservedNames() },
  };
  const service = { createTenant: async (request: unknown) => (step("created"), created.push(request), running) };
  const parts = { context, service, copies, media, source } as unknown as ImportParts;
  const run = async (more: object = {}) => {
    const given = ImportRequestSchema.parse({ homeserverYaml: "/old/homeserver.yaml", ...more });
    const work = { say: () => {}, signal: new AbortController().signal, now: () => 0 };
    let options: OptionVerdict[] = [];
    const message = await importHomeserver(parts, "a", { ...given, release: "1.163.2" }, work, (o) => (options = o));
    return { message, options };
  };
  return { run, done, fail, staged, created, secrets: () => secrets, reviewed: () => reviewed };
}

it("puts everything in place before there is a tenant, with the old keys and what files had", async () => {
  const { run, done, created, secrets, reviewed } = world();
  const { message, options } = await run();
  expect(message).toBe(
    "a runs as clinic.example: 1 users, 1 devices, 1 rooms, 7 events, 2 uploads; 2 background updates are not finished",
  );
  expect(done.filter((step) => !step.startsWith("read"))).toEqual([
    "port",
    "copy dropped",
    "media admitted",
    "exchange",
    "created",
    "settle",
  ]);
  expect(created).toEqual([{ name: "a", serverName: "clinic.example", config: "taken: true\n", release: "1.163.2" }]);
  expect(secrets()).toMatchObject({
    serverName: "clinic.example",
    signingKey: "ed25519 a_old AAAA\n",
    macaroonSecretKey: "macaroon",
    registrationSharedSecret: "shared-secret",
  });
  expect(reviewed()?.overrides).toContain("app_services");
  expect(reviewed()?.overrides).toContain("<p>Policy</p>");
  expect(reviewed()?.overrides).toContain("<p>Hello</p>");
  for (const option of ["database", "media_store_path", "app_service_config_files", "templates", "user_consent"])
    expect(options.find((found) => found.option === option)?.verdict, option).toBe("changed");
});

it("copies what is in a bucket, and what the old server has on its disk alone", async () => {
  const media = { bucket: "old-media", credentialsFile: "/etc/s3.yaml" };
  const { run, done, staged } = world();
  await run({ media });
  expect(done.filter((step) => step.startsWith("read"))).toEqual([
    "read local_content/b",
    "read local_content/c",
    "read local_content/a",
  ]);
  expect(staged.size).toBe(3);
});

it("uses no media of which less came than there is", async () => {
  const { run, created } = world({ bytes: 6 });
  await expect(run()).rejects.toThrow("of media file local_content/a, 5 bytes came instead of 6");
  expect(created).toEqual([]);
});

it("uses nothing of a rehearsal, and keeps the copies of media for the import", async () => {
  const { run, done, staged, created } = world();
  expect((await run({ rehearse: true })).message).toContain("the rehearsal went well");
  expect(done.slice(-2)).toEqual(["forget", "dropped"]);
  expect(created).toEqual([]);
  expect(staged.size).toBe(2);
  done.length = 0;
  await run();
  expect(done.filter((step) => step.startsWith("read"))).toEqual([]);
});

it("goes on where it was, and creates no tenant before the rest is done, wherever it fails", async () => {
  for (const at of ["port", "read local_content/b", "media admitted", "exchange"]) {
    const { run, done, fail, created } = world();
    fail.add(at);
    await expect(run(), at).rejects.toThrow(`${at} fails`);
    expect(created, at).toEqual([]);
    const before = done.filter((step) => step === "read local_content/a").length;
    await run();
    expect(created, at).toHaveLength(1);
    // What was copied is not copied again.
    expect(
      done.filter((step) => step === "read local_content/a"),
      at,
    ).toHaveLength(Math.max(1, before));
  }
});

it("refuses a database that did not come over whole, and a server that still runs", async () => {
  const fewer = world({ counts: { ...COUNTS, events: 6 } });
  await expect(fewer.run()).rejects.toThrow("6 events instead of 7; nothing was changed");
  expect(fewer.done).not.toContain("exchange");
  const busy = world({ user: "process 12" });
  await expect(busy.run()).rejects.toThrow("the old server still runs: process 12 has /old/homeserver.db open");
  await busy.run({ rehearse: true });
});

it("says of every option what becomes of it, and imports none that is refused unless told so", async () => {
  const review = {
    taken: ["enable_search"],
    refused: [
      { option: "redis", why: "no workers", owner: "refused" },
      { option: "pid_file", why: "it is about the process", owner: "platform's" },
    ],
    warnings: ["the option no_such is unknown and has no effect"],
  };
  const { run, created } = world({ review });
  await expect(run()).rejects.toThrow("a tenant may not set redis");
  const { options } = await run({ withoutRefused: true });
  const verdicts = Object.fromEntries(options.map(({ option, verdict }) => [option, verdict]));
  expect(verdicts).toMatchObject({ redis: "refused", pid_file: "changed", no_such: "unknown", enable_search: "taken" });
  expect(created).toHaveLength(1);
  const bad = world({ review: { problem: "the room version 999 is unknown" } });
  await expect(bad.run()).rejects.toThrow("Synapse 1.163.2 does not take the configuration: the room version 999");
});

it("names the file that is missing, and what is no homeserver.yaml", async () => {
  await expect(world({ config: "server_name: other.example" }).run()).rejects.toThrow("other.example.signing.key");
  await expect(world({ config: "a: b" }).run()).rejects.toThrow("has no server_name");
  await expect(world({ config: "server_name: Bad_Name" }).run()).rejects.toThrow("server name");
});
