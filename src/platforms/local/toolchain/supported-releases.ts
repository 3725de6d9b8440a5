import { UserError } from "../../../model/errors.ts";

/** Oldest and newest release that the runtime is tested with; the same as in multi_synapse/release.py, which refuses the others as well. */
export const TESTED_RELEASES = ["1.157.2", "1.163.2"] as const;

/**
 * Said before anything is installed, as the shard that would refuse it can say so only in its log.
 * @param allowed untested ones that an operator has named
 * @throws UserError UnsupportedRelease
 */
export function refuseUnsupportedRelease(release: string, allowed: readonly string[]): void {
  const [oldest, newest] = TESTED_RELEASES;
  const found = minorOf(release);
  if (found === undefined || allowed.includes(release)) return;
  const isCandidate = /rc\d+$/.test(release);
  if (!isCandidate && found >= minorOf(oldest)! && found <= minorOf(newest)!) return;
  throw new UserError(
    "UnsupportedRelease",
    `Synapse ${release} is not supported: shards are tested with ${oldest} to ${newest}. Use one of these; to run it all the same, ` +
      `name it in allowUntestedReleases`,
  );
}

/** As a number to compare; undefined for what is no release, which others refuse. */
function minorOf(release: string): number | undefined {
  const found = /^(\d+)\.(\d+)\.\d+(rc\d+)?$/.exec(release);
  return found ? Number(found[1]) * 10_000 + Number(found[2]) : undefined;
}
