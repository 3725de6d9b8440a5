import { array, assert, constantFrom, property } from "fast-check";
import { describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { changesBetween, snapshotOf } from "../../src/api/audit-changes.ts";

const spec = (config: object, more: object = {}) =>
  snapshotOf({ serverName: "a.example", release: "1.163.2", config: stringify(config), ...more });

describe("the changes of a request", () => {
  test("name each field with what it was and is, and a configuration by its keys", () => {
    const before = spec({ max_upload_size: "10M", enable_search: true });
    const after = spec({ max_upload_size: "20M", url_previews: false }, { release: "1.164.0" });
    expect(changesBetween(before, after)).toEqual([
      { field: "config.enable_search", before: true, after: null },
      { field: "config.max_upload_size", before: "10M", after: "20M" },
      { field: "config.url_previews", before: null, after: false },
      { field: "release", before: "1.163.2", after: "1.164.0" },
    ]);
    expect(changesBetween(before, before)).toEqual([]);
  });

  test("of what was made and what is gone are all of its fields", () => {
    expect(changesBetween(undefined, snapshotOf({ release: "1.163.2" }))).toEqual([
      { field: "release", before: null, after: "1.163.2" },
    ]);
    expect(changesBetween(snapshotOf({ drain: "Requested" }), undefined)).toEqual([
      { field: "drain", before: "Requested", after: null },
    ]);
  });

  test("say of a configuration that is no YAML only how long it is", () => {
    const broken = snapshotOf({ config: "registration_shared_secret: [hunter2" });
    expect(JSON.stringify(changesBetween(snapshotOf({}), broken))).not.toContain("hunter2");
  });

  test("never hold a secret, wherever in a configuration it is", () => {
    const keys = [
      "registration_shared_secret",
      "macaroon_secret_key",
      "turn_shared_secret",
      "smtp_pass",
      "client_secret",
    ];
    assert(
      property(constantFrom(...keys), array(constantFrom("oidc_providers", "modules", "x")), (key, path) => {
        const nested = path.reduce<object>((inner, name) => ({ [name]: [inner] }), { [key]: "hunter2-hunter2" });
        const changes = changesBetween(spec({}), spec(nested));
        expect(changes).not.toEqual([]);
        expect(JSON.stringify(changes)).not.toContain("hunter2");
      }),
    );
    const url = changesBetween(spec({}), spec({ web: { uri: "smtp://joe:hunter2@mail.example" } }));
    expect(JSON.stringify(url)).not.toContain("hunter2");
  });

  test("are cut where a value is long", () => {
    const changes = changesBetween(spec({}), spec({ motd: "x".repeat(100_000) }));
    expect(JSON.stringify(changes).length).toBeLessThan(2000);
  });
});
