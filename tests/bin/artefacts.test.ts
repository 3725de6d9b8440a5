import { execFile } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeArtefacts, optionsOf } from "../../bin/artefacts.ts";
import { withoutHelm } from "../charts/support/matrix-stack.ts";

const run = promisify(execFile);
const ROOT = resolve(import.meta.dirname, "../..");
const ARCHIVE = join(ROOT, "images/archive");
const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string };

interface Index {
  manifests: { mediaType: string; digest: string; annotations: Record<string, string> }[];
}

/** A registry that has what is in a folder of layouts, and takes nothing. */
function registryOf(folder: string): Promise<Server> {
  const server = createServer(({ url = "" }, response) => {
    const [, name = "", kind = "", reference = ""] = /^\/v2\/charts\/([^/]+)\/(manifests|blobs)\/(.+)$/.exec(url) ?? [];
    if (url === "/v2/") return response.end();
    const { manifests } = JSON.parse(readFileSync(join(folder, name, "index.json"), "utf8")) as Index;
    const tagged = manifests.find((each) => each.annotations["org.opencontainers.image.ref.name"] === reference);
    const digest = tagged?.digest ?? reference;
    const isManifest = kind === "manifests";
    const content = readFileSync(join(folder, name, "blobs", digest.replace(":", "/")));
    response.writeHead(200, {
      "content-type": isManifest ? "application/vnd.oci.image.manifest.v1+json" : "application/octet-stream",
      "content-length": content.length,
      "docker-content-digest": digest,
    });
    return response.end(content);
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

describe.skipIf(withoutHelm)("artefacts (needs helm)", () => {
  let directory = "";
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "artefacts-"));
    await makeArtefacts({ directory, images: false, platform: undefined, releases: [] });
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  it("has every chart that there is, and checksums that tell of a changed file", async () => {
    const charts = readdirSync(join(ROOT, "charts"), { withFileTypes: true }).filter((entry) => entry.isDirectory());
    expect(readdirSync(join(directory, "charts")).toSorted()).toEqual(
      charts.map(({ name }) => `${name}-${version}.tgz`).toSorted(),
    );
    const check = () => run("sha256sum", ["--check", "--strict", "SHA256SUMS"], { cwd: directory });
    const { stdout } = await check();
    const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    expect(stdout.trim().split("\n")).toHaveLength(files.length - 1);
    const chart = join(directory, `charts/synapse-tenant-${version}.tgz`);
    const content = readFileSync(chart);
    writeFileSync(chart, Buffer.concat([content, Buffer.from("x")]));
    await expect(check()).rejects.toThrow(/FAILED|did NOT match/);
    writeFileSync(chart, content);
  });

  it("has layouts from which Helm pulls the same charts, once they are in a registry", async () => {
    const registry = await registryOf(join(directory, "oci"));
    const pulled = await mkdtemp(join(tmpdir(), "pulled-"));
    try {
      const { port } = registry.address() as AddressInfo;
      for (const chart of readdirSync(join(directory, "oci"))) {
        const from = `oci://127.0.0.1:${port}/charts/${chart}`;
        await run("helm", ["pull", from, "--version", version, "--plain-http", "--destination", pulled]);
        const file = `${chart}-${version}.tgz`;
        expect(readFileSync(join(pulled, file)).equals(readFileSync(join(directory, "charts", file)))).toBe(true);
      }
    } finally {
      registry.close();
      await rm(pulled, { recursive: true });
    }
  });

  it("names the npm packages that the images have, and none for development", () => {
    const bill = JSON.parse(readFileSync(join(directory, `synapse-shards-${version}.cdx.json`), "utf8")) as {
      bomFormat: string;
      components: { name: string }[];
    };
    const names = bill.components.map(({ name }) => name);
    expect(bill.bomFormat).toBe("CycloneDX");
    expect(names).toContain("fastify");
    expect(names).not.toContain("vitest");
  });

  it("leaves a directory alone that has something, which would be taken for a part of it", async () => {
    const again = makeArtefacts({ directory, images: false, platform: undefined, releases: [] });
    await expect(again).rejects.toThrow(`${directory} is not empty`);
  });
});

describe("what artefacts are made from", () => {
  it.each([
    [[], /DIRECTORY is missing/],
    [["d", "--fast"], /--fast/],
    [["d", "--without-images", "1.163.2"], /leave RELEASE and --platform away/],
  ])("refuses %j", (args, words) => {
    expect(() => optionsOf(args)).toThrow(words);
  });

  it.each([
    [
      "a platform that there is no image for",
      "linux/riscv64",
      "",
      /no image for linux\/riscv64; allowed are linux\/amd64 and/,
    ],
    [
      "a builder for another platform than its machine's",
      `linux/${process.arch === "x64" ? "arm64" : "amd64"}`,
      "false",
      /BUILDER builds for linux\/\w+ alone; for linux\/\w+ use docker buildx/,
    ],
  ])("refuses %s", async (_what, platform, BUILDER, words) => {
    const env = { ...process.env, BUILDER };
    const target = join(tmpdir(), `no-archives-${process.pid}`);
    await expect(run(ARCHIVE, [target, "--platform", platform], { env })).rejects.toThrow(words);
    await rm(target, { recursive: true, force: true });
  });
});
