import { UserError } from "../../../model/errors.ts";

/**
 * Tells what a failed `pip install` was about. pip says "No matching distribution" also when it could not reach the index at
 * all, so that is believed only when pip has seen other releases of the package.
 * @param release the package and version whose absence is the user's mistake, if there is one
 */
export function explainPipFailure(lines: readonly string[], release?: { name: string; version: string }): UserError {
  const text = lines.join("\n");
  if (release) {
    const wanted = `${release.name}==${release.version}`;
    const seen = lines.find((line) => line.includes(`satisfies the requirement ${wanted}`));
    const others = seen?.match(/\(from versions: ([^)]*)\)/)?.[1] ?? "none";
    const otherPython = lines.find((line) => line.includes("require a different python version"));
    if (
      otherPython &&
      new RegExp(`(^|[ ;])${escape(release.version)} Requires-Python`).test(
        otherPython.replace(/^.*python version: /, ""),
      )
    ) {
      return new UserError(
        "Environment",
        `${release.name} ${release.version} does not run on this version of Python; name another one in SYNAPSE_SHARDS_PYTHON`,
      );
    }
    if (seen && others !== "none") {
      return new UserError("UnknownRelease", `${release.name} ${release.version} is not a release on PyPI`);
    }
    if (seen) {
      const cause = lines.find((line) => /connection|retry|timed? ?out|certificate|resolution/i.test(line));
      return new UserError(
        "Environment",
        `pip found no releases of ${release.name} at all: is the network there? ${cause ? lastWords(cause) : ""}`.trim(),
      );
    }
  }
  const words =
    lines.findLast((line) => line.startsWith("ERROR:")) ??
    lines.findLast((line) => line.trim() !== "" && !line.startsWith("[notice]"));
  const hint = /No space left/.test(text) ? "the disk is full" : "pip could not install a package";
  return new UserError("Environment", `${hint}; it said: ${words ? lastWords(words) : "nothing"}`);
}

function lastWords(line: string): string {
  const text = line.replace(/^(ERROR|WARNING): /, "").trim();
  return text.length > 300 ? `${text.slice(0, 299)}…` : text;
}

function escape(text: string): string {
  return text.replaceAll(".", "\\.");
}
