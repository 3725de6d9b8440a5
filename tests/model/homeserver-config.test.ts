import { expect, test } from "vitest";
import { hostsIn, ownDatabase, parseOverrides } from "../../src/model/homeserver-config.ts";

test("prevents a tenant that is served under a name, or claims a database, that Synapse reads otherwise in the same text", () => {
  const text = [
    "# A comment.",
    "public_baseurl: https://old.example/",
    "database: {name: psycopg2, args: {host: db.example, port: 5433, dbname: clinic, user: u, password: 'p#1'}}",
    "public_baseurl: https://Matrix.Clinic.example:8448/ # the last one counts",
  ].join("\n");
  expect(hostsIn("clinic.example", parseOverrides(text))).toEqual(["clinic.example", "matrix.clinic.example"]);
  expect(ownDatabase(text)).toMatchObject({ host: "db.example", port: 5433, name: "clinic", user: "u" });
});

test("prevents that an empty configuration counts as a wrong one", () => {
  for (const text of ["", " \n", "# nothing\n", "---\n", "~", "{}"]) expect(parseOverrides(text), text).toEqual({});
});

test("prevents a controller that stumbles over what only a shard can explain", () => {
  const wrong = ["a: [", "- a\n- b", "just words", "a: 1\n---\nb: 2", "a: !!python/object:os.system {}", "a: !mine 1"];
  for (const text of [...wrong, "\tkey: tab", "a: *nowhere"]) expect(parseOverrides(text), text).toBeUndefined();
});

test("prevents that a configuration reaches into the controller's own objects", () => {
  const found = parseOverrides("__proto__: {polluted: true}\nconstructor: {prototype: {polluted: true}}");
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  expect(Object.getPrototypeOf(found)).not.toHaveProperty("polluted");
});
