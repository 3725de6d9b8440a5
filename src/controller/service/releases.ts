import type { ControllerContext } from "../context.ts";

/**
 * Refuses a release that there is not. Installing it may take minutes, and is the shards' concern.
 * @returns whether it is installed already, or needs no installing @throws UserError UnknownRelease, UnsupportedRelease
 */
export async function isReleaseThere(
  { databases, launcher, reader }: Pick<ControllerContext, "databases" | "launcher" | "reader">,
  release: string,
): Promise<boolean> {
  if (databases.facts(release)) return true;
  const facts = await launcher.checkRelease(release);
  if (facts) databases.learn(facts);
  if (facts) return true;
  return [...reader.values("Shard")].some(({ spec, status }) => spec.release === release && status.phase === "Ready");
}
