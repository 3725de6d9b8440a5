import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import {
  parseRegistration,
  registrationsIn,
  withoutRegistration,
  withRegistration,
} from "../../src/model/app-service.ts";

let made = 0;
const newToken = () => `token ${++made}`;
const bridge = parseRegistration(
  "id: bridge\nurl: http://b\nsender_localpart: bot\nas_token: a\nhs_token: h\n",
  {},
  [],
  newToken,
);
const bot = { ...bridge, id: "bot" };
const CONFIG = "# ours\nmax_upload_size: 5M # small\n";

describe("a registration", () => {
  it("keeps what a bridge's own file says, tokens and unknown keys included", () => {
    const source = "id: x\nas_token: a\nhs_token: h\nsender_localpart: s\nde.sorunome.msc2409.push_ephemeral: true\n";
    expect(parseRegistration(source, {}, [], newToken)).toEqual({
      ...(parse(source) as object),
      url: null,
      namespaces: {},
    });
  });

  it("gets two tokens of its own where it has none", () => {
    const { as_token, hs_token } = parseRegistration("", { id: "x", sender_localpart: "s" }, [], newToken);
    expect(as_token).toMatch(/^token /);
    expect(as_token).not.toBe(hs_token);
  });

  it("has the tokens of the one that is there, and all of it where there is no file", () => {
    expect(parseRegistration("", { id: "bridge", url: "http://c" }, [bridge], newToken)).toEqual({
      ...bridge,
      url: "http://c",
    });
    expect(parseRegistration("id: bridge\nsender_localpart: s", {}, [bridge], newToken)).toMatchObject({
      url: null,
      as_token: "a",
      hs_token: "h",
    });
  });

  it.each([
    ["", "id"],
    ["id: x", "sender_localpart"],
    ["id: [x]\nsender_localpart: s", "id"],
    ["id: x\nsender_localpart: s\nnamespaces: {users: yes}", "namespaces.users"],
    ["id: x\nsender_localpart: s\nas_token: ''", "as_token"],
    ["a: [", "line 1"],
    ["just words", "id"],
  ])("is refused with what is wrong: %j", (source, where) => {
    expect(() => parseRegistration(source, {}, [], newToken)).toThrow(where);
  });
});

describe("a configuration", () => {
  it("gets a registration, and keeps its comments", () => {
    const after = withRegistration(CONFIG, bridge);
    expect(after).toContain("# ours\nmax_upload_size: 5M # small\n");
    expect(registrationsIn(after)).toEqual([bridge]);
  });

  it.each(["", "# nothing yet\n", "synapse_shards:\n", "synapse_shards: {app_services: }\n"])(
    "gets one where it has nothing: %j",
    (before) => {
      expect(registrationsIn(withRegistration(before, bridge))).toEqual([bridge]);
    },
  );

  it("has one of an id", () => {
    const both = withRegistration(withRegistration(CONFIG, bridge), bot);
    const changed = withRegistration(both, { ...bridge, url: "http://other" });
    expect(registrationsIn(changed)).toEqual([{ ...bridge, url: "http://other" }, bot]);
    expect(withRegistration(changed, bot)).toBe(changed);
  });

  it("is as before without the one that was added", () => {
    const both = withRegistration(withRegistration(CONFIG, bridge), bot);
    expect(registrationsIn(withoutRegistration(both, "bridge")!)).toEqual([bot]);
    expect(withoutRegistration(withRegistration(CONFIG, bridge), "bridge")).toBe(CONFIG);
    const templates = "synapse_shards:\n  templates: { a.html: x }\n";
    expect(withoutRegistration(withRegistration(templates, bridge), "bridge")).toBe(templates);
    expect(withoutRegistration(CONFIG, "bridge")).toBeUndefined();
  });

  it("is refused where the place of registrations is taken by something else", () => {
    for (const config of ["synapse_shards: {app_services: {a: 1}}", "synapse_shards: {app_services: yes}", "a: ["])
      expect(() => withRegistration(config, bridge)).toThrow(/configuration/);
  });
});
