import { statfsSync, statSync } from "node:fs";

/** Below it nothing of size can be written any more. */
const FULL_BYTES = 16 * 1024 ** 2;
/** Below both it is time to do something. */
const LOW_BYTES = 1024 ** 3;
const LOW_SHARE = 0.05;

interface Space {
  bytes: number;
  share: number;
  inodes: number;
}

/** What is wrong with the disks that directories are on: one sentence for each disk. @param places each with what is kept there, in words */
export function diskProblems(places: readonly { directory: string; what: string }[], spaceAt = spaceOf): string[] {
  const disks = new Map<number, { directory: string; whats: string[] }>();
  for (const { directory, what } of places) {
    const disk = statSync(directory, { throwIfNoEntry: false })?.dev;
    if (disk === undefined) continue;
    const known = disks.get(disk);
    if (known) known.whats.push(what);
    else disks.set(disk, { directory, whats: [what] });
  }
  return [...disks.values()].flatMap(({ directory, whats }) => {
    const problem = problemOf(spaceAt(directory));
    return problem === undefined ? [] : [`the disk of ${directory} (${whats.join(", ")}) ${problem}`];
  });
}

function problemOf({ bytes, share, inodes }: Space): string | undefined {
  if (bytes < FULL_BYTES) return "is full: free some space; what needs to be written fails until then";
  if (inodes === 0)
    return "has no room for further files (inodes): remove some; what needs to be written fails until then";
  if (bytes < LOW_BYTES && share < LOW_SHARE)
    return `is nearly full: ${Math.floor(bytes / 1024 ** 2)} MiB are left (${(share * 100).toFixed(1)} %)`;
  return undefined;
}

function spaceOf(directory: string): Space {
  const { bavail, bsize, blocks, ffree, files } = statfsSync(directory);
  // File systems that make inodes as they need them say that they have none at all.
  return { bytes: bavail * bsize, share: bavail / Math.max(1, blocks), inodes: files === 0 ? 1 : ffree };
}
