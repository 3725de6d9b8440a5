import { readFileSync } from "node:fs";
import { open, mkdtemp, readdir, rm } from "node:fs/promises";
import { spawn } from "node:child_process";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeArtefacts } from "../../bin/artefacts.ts";
import { withoutCluster } from "./support/cluster.ts";
import { Installation, nodes } from "./support/installation.ts";
import { kubectl, run } from "./support/run.ts";

const RELEASE = "1.163.2";
const MINUTES = 60_000;
const ROOT = resolve(import.meta.dirname, "../..");
const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string };
const IMAGES = [`ghcr.io/synapse-shards/synapse-shards:${version}`, `ghcr.io/synapse-shards/shard:${RELEASE}`];
/** `ctr` with the containerd of the last node, for the kubelet's images. */
const CTR = (process.env["NODE_CTR"] ?? "").split(" ").filter((word) => word !== "");

/** The command, with a file as its standard input, as a node in a container has no other way to it. */
async function ctr(args: string[], file?: string): Promise<void> {
  const input = file === undefined ? undefined : await open(file);
  const [program = "", ...first] = CTR;
  try {
    const child = spawn(program, [...first, ...args], { stdio: [input?.fd ?? "ignore", "ignore", "inherit"] });
    const code = await new Promise<number | null>((done, failed) => child.once("close", done).once("error", failed));
    if (code !== 0) throw new Error(`${CTR.join(" ")} ${args.join(" ")} failed (${code})`);
  } finally {
    await input?.close();
  }
}

/** As docs/air-gapped.md says: a node that has no image, and no registry to ask. */
describe.skipIf(withoutCluster || CTR.length === 0 || !process.env["BUILDER"])(
  "without a registry (needs KUBECONFIG, BUILDER, SAVE as in images/archive, and NODE_CTR: `ctr` on the last node)",
  () => {
    let directory = "";
    let node = "";
    const cluster = new Installation("air", { chartOf: (name) => join(directory, "charts", `${name}-${version}.tgz`) });
    const listed = async () => {
      const [program = "", ...first] = CTR;
      const names = (await run(program, [...first, "images", "ls", "-q"])).split("\n");
      return IMAGES.filter((image) => names.includes(image));
    };
    const archives = async () =>
      (await readdir(join(directory, "images"))).map((name) => join(directory, "images", name)).toSorted();

    beforeAll(async () => {
      node = (await nodes()).at(-1)!;
      directory = await mkdtemp(join(tmpdir(), "artefacts-"));
      await makeArtefacts({ directory, images: true, platform: undefined, releases: [RELEASE] });
    }, 10 * MINUTES);
    afterAll(async () => {
      await cluster.close();
      // What other tests need.
      for (const archive of await archives().catch(() => [])) await ctr(["images", "import", "-"], archive);
      await rm(directory, { recursive: true, force: true });
    }, 5 * MINUTES);

    it(
      "takes images from their archives, charts from theirs, and serves a homeserver",
      async () => {
        expect(await archives()).toHaveLength(2);
        await ctr(["images", "rm", "--sync", ...IMAGES]);
        expect(await listed()).toEqual([]);
        for (const archive of await archives()) await ctr(["images", "import", "-"], archive);
        expect(await listed()).toEqual(IMAGES);

        const here = { nodeSelector: { "kubernetes.io/hostname": node }, topologySpreadConstraints: [] };
        await cluster.install({
          fleet: { imageTag: RELEASE },
          controller: { ...here, replicas: 1 },
          gateway: { ...here, replicas: 1 },
          shard: here,
        });
        await cluster.createTenant("a");
        await cluster.running("a");
        const ada = await cluster.register("a", "ada");
        expect((await ada.client.whoami()).user_id).toBe("@ada:a.example");

        const pods = JSON.parse(await kubectl("-n", cluster.namespace, "get", "pods", "-o", "json")) as {
          items: { metadata: { labels: Record<string, string> }; spec: { nodeName: string } }[];
        };
        const ours = pods.items.filter(({ metadata }) => metadata.labels["app.kubernetes.io/component"] !== undefined);
        expect(ours.map(({ spec }) => spec.nodeName)).toEqual([node, node, node]);
      },
      8 * MINUTES,
    );
  },
);
