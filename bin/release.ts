// What a release needs: `check TAG` compares the tag with every place that names the version, `notes TAG` prints its part of CHANGELOG.md.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ROOT } from "../src/model/project.ts";

/** Each with a pattern whose group is the version. */
const PLACES: [path: string, version: RegExp][] = [
  ["package.json", /"version": "(.+)"/],
  ["package-lock.json", /"version": "(.+)"/],
  ["multi_synapse/pyproject.toml", /^version = "(.+)"$/m],
  ["charts/synapse-shards/Chart.yaml", /^version: (.+)$/m],
  ["charts/synapse-shards/Chart.yaml", /^appVersion: "?([^"\n]+)"?$/m],
  ["charts/matrix-stack/Chart.yaml", /^version: (.+)$/m],
  ["charts/matrix-stack/Chart.yaml", /^appVersion: "?([^"\n]+)"?$/m],
  ["charts/synapse-tenant/Chart.yaml", /^version: (.+)$/m],
  ["charts/synapse-tenant/Chart.yaml", /^appVersion: "?([^"\n]+)"?$/m],
];

/** @returns what each place says, as `{place, version}` */
export function versions(): { place: string; version: string | undefined }[] {
  return PLACES.map(([place, pattern]) => ({ place, version: pattern.exec(read(place))?.[1] }));
}

/** @returns a sentence for each reason why `tag` cannot be released */
export function problemsOf(tag: string, changelog = read("CHANGELOG.md")): string[] {
  const expected = /^v(\d+\.\d+\.\d+(?:-[a-z0-9.]+)?)$/.exec(tag)?.[1];
  if (expected === undefined) return [`${tag} is not a release's tag, such as v1.2.3 or v1.2.3-rc.1`];
  const problems = versions()
    .filter(({ version }) => version !== expected)
    .map(({ place, version }) => `${place} has the version ${version}, not ${expected}`);
  if (notesOf(tag, changelog) === undefined) problems.push(`CHANGELOG.md has no section [${expected}]`);
  return problems;
}

/** @returns the section of a release without its heading, or undefined if there is none, or an empty one */
export function notesOf(tag: string, changelog = read("CHANGELOG.md")): string | undefined {
  const sections = changelog.split(/^## /m);
  const section = sections.find((text) => text.startsWith(`[${tag.replace(/^v/, "")}]`));
  return section?.slice(section.indexOf("\n")).trim() || undefined;
}

function read(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [command, tag = ""] = process.argv.slice(2);
  if (command === "check") {
    const problems = problemsOf(tag);
    for (const problem of problems) console.error(`error: ${problem}`);
    process.exitCode = problems.length > 0 ? 1 : 0;
  } else if (command === "notes" && notesOf(tag) !== undefined) {
    console.log(notesOf(tag));
  } else {
    console.error("usage: node bin/release.ts check|notes TAG, with a TAG that CHANGELOG.md has a section for");
    process.exitCode = 2;
  }
}
