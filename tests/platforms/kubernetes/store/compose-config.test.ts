import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { composeConfig } from "../../../../src/platforms/kubernetes/store/compose-config.ts";

const from = "the key k of the Secret clinic/s";
const read = (text: string) => parse(text, { version: "1.1" }) as Record<string, unknown>;

describe("homeserver.yaml with values from Secrets", () => {
  it("puts a value at its place and keeps it a text, whatever it looks like", () => {
    const text = "database: {args: {user: a, port: 5_432}}\nlist: [{config: {x: 1}}]\n";
    for (const content of ["yes", "012", "a: b", '"', "\n", "~", "#x", "\u0085ü"]) {
      const composed = composeConfig(text, [
        { path: "/database/args/password", content, from },
        { path: "/list/0/config/secret_key", content, from },
      ]);
      expect(read(composed)).toEqual({
        database: { args: { user: "a", port: 5432, password: content } },
        list: [{ config: { x: 1, secret_key: content } }],
      });
    }
  });

  it("makes mappings of what is missing on the way to a value", () => {
    const composed = composeConfig("a: 1\n", [{ path: "/b/c/d", content: "v", from }]);
    expect(composed).not.toContain("!!");
    expect(read(composed)).toEqual({ a: 1, b: { c: { d: "v" } } });
  });

  it("keeps what Synapse's YAML means by what is already there", () => {
    const text = "a: yes\nb: 0o17\nc: 017\nd: 1_000\ne: 12:30\nf: &x {k: 1}\ng: {<<: *x}\n";
    expect(read(composeConfig(text, [{ path: "/z", content: "v", from }]))).toEqual({ ...read(text), z: "v" });
  });

  it("adds the options of a part, below those that homeserver.yaml has; modules of both are loaded", () => {
    const composed = composeConfig("a: 1\nmodules: [{module: x.Y}]\n", [
      { content: "a: 2\nb: 3\nc: 4\nmodules: [{module: v.V}]\n", from },
      { content: "c: 5\nmodules: [{module: w.W}]\n", from },
    ]);
    const modules = ["v.V", "w.W", "x.Y"].map((module) => ({ module }));
    expect(read(composed)).toEqual({ a: 1, b: 3, c: 5, modules });
  });

  it("adds registrations of application services to those that are there, and says where one does not fit", () => {
    const part = { content: "id: bridge\nas_token: '012'\nurl: null\n", from, isAppService: true as const };
    const servicesIn = (text: string) => (read(composeConfig(text, [part]))["synapse_shards"] as any).app_services;
    const bridge = { id: "bridge", as_token: "012", url: null };
    expect(servicesIn("a: 1\n")).toEqual([bridge]);
    expect(servicesIn("synapse_shards: {hosts: [a], app_services: [{id: bot}]}\n")).toEqual([{ id: "bot" }, bridge]);
    expect(() => servicesIn("synapse_shards: {app_services: wrong}\n")).toThrow(`${from} is to be the option`);
    expect(() => composeConfig("", [{ ...part, content: "- a" }])).toThrow(`${from} is not a YAML mapping`);
  });

  it("adds the names of the object to those that homeserver.yaml has, and leaves what is wrong there to the shard", () => {
    const hostsOf = (text: string) => (read(composeConfig(text, [], ["x.svc"]))["synapse_shards"] as any)?.hosts;
    expect(hostsOf("")).toEqual(["x.svc"]);
    expect(hostsOf("a: 1\nsynapse_shards: {templates: {}}\n")).toEqual(["x.svc"]);
    expect(hostsOf("synapse_shards: {hosts: [chat.example]}\n")).toEqual(["chat.example", "x.svc"]);
    expect(hostsOf("synapse_shards: {hosts: wrong}\n")).toEqual("wrong");
    expect(composeConfig("a:   1", [], [])).toBe("a:   1");
  });

  it.each([
    ["[1,2", [], "homeserver.yaml is not YAML"],
    ["- a", [], "homeserver.yaml is not a YAML mapping"],
    ["a: 1", [{ content: "[", from }], `${from} is not YAML`],
    ["a: 1", [{ content: "x", from }], `${from} is not a YAML mapping`],
    ["a: 1", [{ path: "/a/b", content: "x", from }], "there is no such place in homeserver.yaml"],
  ])("says which of the texts does not fit: %s", (text, parts, words) => {
    const more = { path: "/z", content: "", from };
    expect(() => composeConfig(text, [...parts, more])).toThrow(words);
  });
});
