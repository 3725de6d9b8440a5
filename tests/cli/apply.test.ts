import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { TenantView } from "../../src/api/views.ts";
import { APPLIED_LABEL, planOf, readWanted, refuseFormerNames } from "../../src/cli/applying.ts";
import { type ClusterUnderTest, startClusterUnderTest } from "./cli-under-test.ts";

vi.setConfig({ testTimeout: 180_000 });

const read = (text: string) => readWanted(text, "tenants.yaml");

function present(spec: Partial<TenantView["spec"]> = {}): TenantView {
  const labels = { [APPLIED_LABEL]: "yes", ...spec.labels };
  return {
    metadata: { name: "a" },
    spec: { serverName: "a.localhost", release: "1.163.2", config: "", reclaimPolicy: "Retain", ...spec, labels },
  } as unknown as TenantView;
}

describe("a file of tenants", () => {
  test.each([
    ["one document", "name: a\n---\nname: b\n"],
    ["a list", "- name: a\n- name: b\n"],
    ["tenants", "tenants:\n  - name: a\n---\ntenants: [{name: b}]\n"],
  ])("is %s", (_what, text) => {
    expect(read(text).map(({ name }) => name)).toEqual(["a", "b"]);
  });

  test.each([
    ["names no tenant", "# nothing\n", "it names no tenant"],
    ["is no YAML", "name: a\n  b: [", "line 1, column 7: not YAML"],
    ["has an unknown field", "name: a\ncolour: red\n", 'tenant a: Unrecognized key: "colour"'],
    ["has a wrong value", "name: a\nquotas: {users: -1}\n", "tenant a: quotas.users"],
    ["has a name that is none", "name: A_B\n", "tenant A_B: name"],
    ["has a tenant twice", "- name: a\n- name: a\n", "tenant a is there twice"],
    ["has no name", "- release: 1.163.2\n", "tenant number 1: name"],
    [
      "grows without bound",
      `name: a\nconfig:\n  a: &a [1,1,1,1,1,1,1,1,1]\n${"bcdefgh"
        .split("")
        .map((key, at) => `  ${key}: &${key} [${`*${"abcdefg"[at]},`.repeat(9)}]`)
        .join("\n")}\n`,
      "too many aliases",
    ],
    ["is nested without bound", `name: ${"[".repeat(100_000)}`, "it is nested deeper than 32 levels"],
  ])("is refused where it %s, without a word of its content", (_what, text, words) => {
    expect(() => read(text)).toThrow(words);
  });

  test("keeps what Synapse would read in another way than YAML 1.2", () => {
    const [wanted] = read('name: a\nconfig:\n  word: "yes"\n  flag: yes\n  time: "22:30"\n');
    expect(wanted?.config).toBe('word: "yes"\nflag: true\ntime: "22:30"\n');
  });
});

describe("a name that a tenant had before", () => {
  const renamed = { ...present(), metadata: { name: "b" }, status: { formerNames: [{ name: "a", until: "2026" }] } };
  const refuse = (text: string) => refuseFormerNames(read(text), [renamed as unknown as TenantView], "tenants.yaml");

  test.each(["name: a\n", "name: a\nserverName: a.localhost\n", "- name: a\n- name: c\n"])(
    "is not taken for a new tenant: %j",
    (text) => {
      expect(() => refuse(text)).toThrow(/^tenants.yaml: tenant a \(a.localhost\) was renamed to b: change its name/);
    },
  );

  test.each(["name: b\n", "- name: a\n- name: b\n", "name: a\nserverName: other.example\n"])(
    "may be given to a new tenant that the file tells from the renamed one: %j",
    (text) => {
      expect(() => refuse(text)).not.toThrow();
    },
  );
});

describe("what is to be done", () => {
  test("is nothing where all is as the file says, however it is written", () => {
    const spec = {
      config: "# a comment\nb: {c: 1}\na: [x]\n",
      plan: "small",
      quotas: { users: 5 },
      labels: { paid: "yes" },
    };
    const [wanted] = read(
      "name: a\nserverName: a.localhost\nplan: small\nquotas: {users: 5}\nlabels: {paid: 'yes'}\nconfig: {a: [x], b: {c: 1}}\nplacement: {}\n",
    );
    expect(planOf(wanted!, present(spec))).toEqual({ name: "a", action: "none", lines: [] });
    // What the file does not speak of stays.
    expect(planOf(read("name: a")[0]!, present({ ...spec, placement: { isolate: true } })).action).toBe("none");
    expect(planOf(read("name: a\nisolation: shared")[0]!, present(spec)).action).toBe("none");
  });

  test("is only what differs, and the difference tells no value of a configuration", () => {
    const config = "macaroon_secret_key: old-secret\nrc: {a: 1, b: 2}\ngone: 1\n";
    const [wanted] = read(
      "name: a\nplan: null\nquotas: {users: 7}\nlabels: {paid: null, region: eu}\nconfig: {macaroon_secret_key: new-secret, rc: {a: 1, b: 3}, more: 1}\n",
    );
    const plan = planOf(wanted!, present({ config, plan: "small", labels: { paid: "yes" } }));
    expect(plan.lines).toEqual([
      "plan: small → none",
      'quotas: none → {"users":7}',
      "label paid: yes → none",
      "label region: none → eu",
      "config gone: removed",
      "config macaroon_secret_key: changed",
      "config more: added",
      "config rc.b: changed",
    ]);
    expect(JSON.stringify(plan.lines)).not.toContain('secret"');
    const alone = planOf(read("name: a\nisolation: shared")[0]!, present({ isolation: "dedicated" }));
    expect(alone).toMatchObject({ body: { isolation: "shared" }, lines: ["isolation: dedicated → shared"] });
    expect(plan.body).toMatchObject({ plan: null, quotas: { users: 7 }, labels: { paid: null, region: "eu" } });
    expect(Object.keys(plan.body ?? {})).not.toContain("release");
  });

  test("is refused where it would be another server name", () => {
    expect(() => planOf(read("name: a\nserverName: b.example")[0]!, present())).toThrow("can never be changed");
  });
});

describe("apply", () => {
  let cluster: ClusterUnderTest;
  beforeEach(async () => {
    cluster = await startClusterUnderTest();
    cluster.service.addShard("1.163.2-0");
  });
  afterEach(() => cluster.close());

  test("creates, changes, and the second time changes nothing; --prune deletes what was applied, and nothing else", async () => {
    cluster.service.run(cluster.service.addTenant("by-hand"), "1.163.2-0");
    const file = await cluster.write("tenants.yaml", "- name: a\n  plan: small\n- name: b\n  labels: {paid: 'yes'}\n");
    expect(await cluster.printed("apply", "-f", file, "--dry-run")).toBe("\n+ tenant a\n+ tenant b\n");
    expect([...cluster.service.tenants.keys()]).toEqual(["by-hand"]);
    expect(await cluster.printed("apply", "-f", file, "--wait")).toBe("\ntenant a created\ntenant b created\n");
    const generations = () => [...cluster.service.tenants.values()].map(({ metadata }) => metadata.generation);
    const before = generations();
    expect(await cluster.printed("apply", "-f", file)).toBe("\ntenant a unchanged\ntenant b unchanged\n");
    expect(generations()).toEqual(before);
    const less = await cluster.write("less.yaml", "name: a\nplan: large\n");
    const dry = await cluster.printed("apply", "-f", less, "--prune", "--dry-run");
    expect(dry).toBe("\n~ tenant a\n    plan: small → large\n- tenant b\n");
    const refused = await cluster.cli(["apply", "-f", less, "--prune"]);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining("nothing was changed")]);
    expect(cluster.service.tenants.get("a")?.spec.plan).toBe("small");
    const others = await cluster.printed("apply", "-f", less, "--prune", "-l", "paid=no", "--yes");
    expect(others).toBe("\ntenant a changed\n");
    expect(await cluster.printed("apply", "-f", less, "--prune", "-l", "paid=yes", "--yes")).toBe(
      "\ntenant a unchanged\ntenant b deleted\n",
    );
    expect([...cluster.service.tenants.keys()]).toEqual(["by-hand", "a"]);
  });
});
