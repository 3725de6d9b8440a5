import { expect, test } from "vitest";
import { disagreement, hostsOf, readConfig, tryReadConfig } from "../../src/model/config-reading.ts";

const database = (args: string) => `database: {name: psycopg2, args: {${args}}}`;
const COMPLETE = "host: db.example, user: u, password: p, dbname: clinic";

test("reads the database and the URL that Synapse reads in the same text", () => {
  const text = [
    "# A comment.",
    "public_baseurl: https://old.example/",
    "database: {name: psycopg2, args: {host: db.example, port: 5_433, dbname: clinic, user: u, password: 'p#1'}}",
    "public_baseurl: https://Matrix.Clinic.example:8448/ # the last one counts",
  ].join("\n");
  const { database: own, publicBaseUrl } = readConfig(text);
  expect(own).toEqual({
    host: "db.example",
    port: 5433,
    name: "clinic",
    user: "u",
    password: "p#1",
    sslMode: "prefer",
  });
  expect(hostsOf("clinic.example", publicBaseUrl)).toEqual(["clinic.example", "matrix.clinic.example"]);
});

test("reads further names that lead to a tenant, and none that are no names", () => {
  const hostsIn = (hosts: string) => {
    const { hosts: further } = readConfig(`synapse_shards: {hosts: ${hosts}}`);
    return hostsOf("clinic.example", "https://matrix.clinic.example/", further).slice(2);
  };
  expect(hostsIn("[chat.clinic.example, clinic-synapse.clinic.svc.cluster.local]")).toEqual([
    "chat.clinic.example",
    "clinic-synapse.clinic.svc.cluster.local",
  ]);
  expect(hostsIn("[matrix.clinic.example]")).toEqual([]);
  for (const wrong of ["x", "{a: 1}", "[Chat.example]", "['a:8008']", "[10.0.0.1]", "[0x7f.1]", "[a_b]", "[5, ~]"])
    expect(hostsIn(wrong), wrong).toEqual([]);
});

test("takes an empty configuration for what it is", () => {
  for (const text of ["", " \n", "# nothing\n", "---\n", "~", "{}"]) expect(readConfig(text), text).toEqual({});
});

test.each([
  ["a: [", /^the configuration cannot be read: line 1, column 5: not YAML/],
  ["[1, 2\n", /line 2, column 1: not YAML/],
  ["- a\n- b", /line 1, column 1: a list, where a mapping/],
  ["just words", /a single value, where a mapping/],
  ["a: 1\n---\nb: 2", /a second document begins here/],
  ["a: !!python/object:os.system {}", /a tag that is not known/],
  ["\tkey: tab", /not YAML/],
  ["a: *nowhere", /an alias of an anchor that is not above it/],
  ["database:", /^database is not a mapping/],
  ["database: {name: psycopg2}", /^database.args is not a mapping/],
  [
    database(`${COMPLETE}, dsn: 'host=elsewhere'`),
    /^database.args.dsn is not possible; give host, port, user and dbname/,
  ],
  [database(`${COMPLETE}, service: prod`), /^database.args.service is not possible/],
  [database(`${COMPLETE}, hostaddr: 10.0.0.1`), /^database.args.hostaddr is not possible/],
  [database("host: 'a,b', user: u, dbname: d"), /^database.args.host is not one host name or address/],
  [database("host: /run/postgresql, user: u, dbname: d"), /^database.args.host is not one host/],
  [database("user: u, dbname: d"), /^database.args.host is missing/],
  [database(`${COMPLETE}, database: other`), /^database.args has both dbname and database/],
  [database(`${COMPLETE}, port: '5432,5433'`), /^database.args.port is not a port/],
  [database(`${COMPLETE}, port: 0`), /^database.args.port is not a port/],
  [database(`${COMPLETE}, port: yes`), /^database.args.port is not a port/],
])("refuses %j in a sentence that says what and where", (text, why) => {
  expect(() => readConfig(text)).toThrow(why);
  expect(tryReadConfig(text)).toBeUndefined();
});

test("keeps passwords out of errors", () => {
  const text = "database: {args: {password: hunter2, host: [hunter2]}}\nother: [hunter2";
  expect(() => readConfig(text)).toThrow(expect.objectContaining({ message: expect.not.stringContaining("hunter2") }));
});

test("leaves the controller's own objects alone, whatever a configuration names", () => {
  readConfig("__proto__: {polluted: true}\nconstructor: {prototype: {polluted: true}}");
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
});

test("sees where a shard reads another database, or one where none is seen here", () => {
  const meaning = { hosts: [], publicBaseUrl: "", bucket: null };
  const theirs = { host: "db.example", port: 5432, name: "clinic", user: "u" };
  const reading = readConfig(database(COMPLETE));
  expect(disagreement(reading, { ...meaning, database: theirs })).toBeUndefined();
  expect(disagreement({}, { ...meaning, database: null })).toBeUndefined();
  expect(disagreement(reading, { ...meaning, database: null })).toMatch(/can be read differently/);
  expect(disagreement({}, { ...meaning, database: theirs })).toMatch(/can be read differently/);
  for (const other of [{ host: "x" }, { port: 1 }, { name: "x" }, { user: "x" }])
    expect(disagreement(reading, { ...meaning, database: { ...theirs, ...other } })).toBeDefined();
});

test("reads whom a database's certificate is verified by, and leaves what is no text to the shard, which refuses it", () => {
  const text =
    "database: {name: psycopg2, args: {host: h, dbname: d, user: u}}\nsynapse_shards: {database_authorities: PEM}";
  expect(readConfig(text).database?.authorities).toBe("PEM");
  expect(readConfig(text.replace("PEM", "[PEM]")).database).not.toHaveProperty("authorities");
});
