// `npm run artefacts -- DIRECTORY`: everything that a cluster without a registry is installed from (docs/air-gapped.md), with checksums.
import { createHash } from "node:crypto";
import { createReadStream, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { spawn, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parse } from "yaml";
import { UserError } from "../src/model/errors.ts";
import { ROOT } from "../src/model/project.ts";
import { writeLayout } from "./oci-layout.ts";

const USAGE = `usage: npm run artefacts -- DIRECTORY [--without-images] [--platform LIST] [RELEASE…]

Writes into DIRECTORY, which must be new or empty:
  charts/NAME-VERSION.tgz     every chart
  oci/NAME                    the same, each as an OCI image layout with its version as tag
  images/NAME-TAG-ARCH.tar    the images, as OCI archives
  synapse-shards-VERSION.cdx.json  bill of materials of the npm packages (CycloneDX)
  SHA256SUMS                  checksums of all of these

  --without-images  no archives of images
  --platform LIST   of the archives; default: linux/amd64,linux/arm64, or with BUILDER this machine's
  RELEASE           release of Synapse that there is to be a shard image for; default: all with a lock file

Images are built by docker buildx, or by BUILDER and SAVE: see images/archive.`;

/** For who asks for it. */
const HELP = ["--help", "-h"];

export interface Options {
  directory: string;
  images: boolean;
  platform: string | undefined;
  releases: string[];
}

/** @throws UserError InvalidInput */
export function optionsOf(args: readonly string[]): Options {
  const { positionals, values } = parsed(args);
  const [directory, ...releases] = positionals;
  if (!directory) throw new UserError("InvalidInput", `DIRECTORY is missing\n${USAGE}`);
  const images = !values["without-images"];
  if (!images && (releases.length > 0 || values.platform !== undefined))
    throw new UserError("InvalidInput", "--without-images makes no image: leave RELEASE and --platform away");
  return { directory: resolve(directory), images, platform: values.platform, releases };
}

function parsed(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: { "without-images": { type: "boolean" }, platform: { type: "string" } },
      allowPositionals: true,
    });
  } catch (error) {
    throw new UserError("InvalidInput", `${(error as Error).message}\n${USAGE}`);
  }
}

/** @throws UserError if the directory has something, or a program that is needed is missing or fails */
export async function makeArtefacts({ directory, images, platform, releases }: Options): Promise<void> {
  // What an earlier version left would be taken for this one's.
  if (existsSync(directory) && readdirSync(directory).length > 0)
    throw new UserError("InvalidInput", `${directory} is not empty: name a new directory`);
  mkdirSync(join(directory, "charts"), { recursive: true });
  makeCharts(directory);
  const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string };
  const sbom = ["sbom", "--package-lock-only", "--omit=dev", "--sbom-format=cyclonedx"];
  writeFileSync(join(directory, `synapse-shards-${version}.cdx.json`), output("npm", sbom));
  if (images) {
    const flags = [...(platform === undefined ? [] : ["--platform", platform]), ...releases];
    await shown(join(ROOT, "images/archive"), [join(directory, "images"), ...flags]);
  }
  const sums = await checksums(directory);
  writeFileSync(join(directory, "SHA256SUMS"), sums);
}

function makeCharts(directory: string): void {
  const charts = readdirSync(join(ROOT, "charts")).filter((name) =>
    existsSync(join(ROOT, "charts", name, "Chart.yaml")),
  );
  for (const name of charts) {
    output("helm", ["package", join(ROOT, "charts", name), "--destination", join(directory, "charts")]);
    const metadata = parse(readFileSync(join(ROOT, "charts", name, "Chart.yaml"), "utf8")) as {
      version: string;
      description: string;
    };
    const archive = readFileSync(join(directory, "charts", `${name}-${metadata.version}.tgz`));
    // The media types are Helm's, as `helm push` writes them and `helm pull` expects them.
    writeLayout(join(directory, "oci", name), {
      tag: metadata.version,
      config: { mediaType: "application/vnd.cncf.helm.config.v1+json", content: Buffer.from(JSON.stringify(metadata)) },
      layer: { mediaType: "application/vnd.cncf.helm.chart.content.v1.tar+gzip", content: archive },
      annotations: {
        "org.opencontainers.image.title": name,
        "org.opencontainers.image.version": metadata.version,
        "org.opencontainers.image.description": metadata.description,
      },
    });
  }
}

/** @returns a line for each file below, as `sha256sum --check` reads them */
async function checksums(directory: string): Promise<string> {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .toSorted();
  const lines: string[] = [];
  for (const file of files) {
    const hash = createHash("sha256");
    await pipeline(createReadStream(file), hash);
    lines.push(`${hash.digest("hex")}  ${relative(directory, file)}\n`);
  }
  return lines.join("");
}

function output(program: string, args: string[]): string {
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    cwd: ROOT,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status !== 0)
    throw new UserError("Environment", `${program} ${args[0]} failed: ${error?.message ?? stderr.trim()}`);
  return stdout;
}

/** With what it says: a build takes minutes. */
async function shown(program: string, args: string[]): Promise<void> {
  const child = spawn(program, args, { cwd: ROOT, stdio: ["ignore", 2, 2] });
  const code = await new Promise<number | null>((done, failed) => child.once("close", done).once("error", failed));
  if (code !== 0) throw new UserError("Environment", `${program} failed`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2);
  try {
    if (args.some((arg) => HELP.includes(arg))) console.log(USAGE);
    else await makeArtefacts(optionsOf(args));
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    console.error(`error: ${error.message}`);
    process.exitCode = 1;
  }
}
