import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AuditEntry } from "../../../../src/api/audit.ts";
import { loadKubeConfig } from "../../../../src/platforms/kubernetes/client.ts";
import { withoutCluster } from "../../../kubernetes/support/cluster.ts";
import { until } from "../../../support/patience.ts";
import { Controllers } from "../support/controllers.ts";

describe.skipIf(withoutCluster)("the audit log over leaders (needs KUBECONFIG)", () => {
  const controllers = new Controllers(withoutCluster ? undefined! : loadKubeConfig());
  beforeAll(() => controllers.prepare());
  afterAll(() => controllers.close());

  it("is one chain, which has whatever was answered, wherever the leader is killed", async () => {
    const [first, second] = [await controllers.start(), await controllers.start()];
    await controllers.answers(first);
    await controllers.answers(second);
    const former = (await controllers.leader())!;
    const other = former === first ? second : first;
    const answered: string[] = [];
    let isKilled = false;
    const asking = [0, 1, 2].map(async (person) => {
      for (let number = 0; !isKilled; number++) {
        const name = `nobody-${person}-${number}`;
        if ((await controllers.sleep(former, name)) === 404) answered.push(`/v1/tenants/${name}/sleep`);
      }
    });
    await until("they ask", async () => answered.length > 300);
    former.child.kill("SIGKILL");
    isKilled = true;
    await Promise.all(asking);
    await controllers.leads(other);
    await controllers.answers(other);
    expect(await controllers.sleep(other, "after-the-kill")).toBe(404);

    const exported = await controllers.cli(other, "audit", "export");
    const lines = exported.stdout.trim().split("\n");
    const paths = lines.map((line) => (JSON.parse(line) as AuditEntry).path);
    expect(paths.filter((path) => answered.includes(path)).toSorted()).toEqual(answered.toSorted());
    expect(paths.at(-1)).toBe("/v1/tenants/after-the-kill/sleep");
    const verified = await controllers.cli(other, "audit", "verify", "-o", "json");
    expect(verified).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(verified.stdout)).toMatchObject({ entries: paths.length, unchained: 0, breaks: [] });
    const listed = (await controllers.cli(other, "audit", "--tail", "100000")).stdout;
    for (const path of [answered[0]!, answered.at(-1)!, paths.at(-1)!]) expect(listed).toContain(path);
  });

  it("is there after all controllers have stopped in order", async () => {
    const before = (await controllers.leader())!;
    const { stdout } = await controllers.cli(before, "audit", "verify", "-o", "json");
    const { head } = JSON.parse(stdout) as { head: string };
    before.child.kill("SIGTERM");
    await new Promise((done) => before.child.once("exit", done));
    const next = await controllers.start();
    await controllers.leads(next);
    await controllers.answers(next);
    const verified = await controllers.cli(next, "audit", "verify", "-o", "json");
    expect(JSON.parse(verified.stdout)).toMatchObject({ breaks: [] });
    expect((await controllers.cli(next, "audit", "export")).stdout).toContain(`"previous":"${head}"`);
  });
});
