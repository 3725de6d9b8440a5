import { randomInt } from "node:crypto";
import { existsSync, realpathSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { totalmem } from "node:os";
import { z } from "zod";
import { pythonEnvironment } from "../environment.ts";
import { firstClosed } from "../files.ts";
import { runCommand } from "../toolchain/run-command.ts";

/** Users that no machine has: above those of people, services, and containers, below where programs take numbers for negative. */
const FIRST_UID = 1_900_000_000;
const LAST_UID = 2_100_000_000;
/** A release with its threads needs some hundred MiB of address space for their stacks alone. */
const LEAST_MEMORY = 2 * 1024 ** 3;
const DESCRIPTORS = 65_536;
/** Threads count too. */
const PROCESSES = 1_024;

/** What programs need of the system: themselves, names of hosts and users, certificates, the time zone, random numbers. */
const SYSTEM_READ = [
  "/usr",
  "/lib",
  "/lib32",
  "/lib64",
  "/bin",
  "/sbin",
  "/etc",
  "/opt",
  "/nix/store",
  "/proc",
  "/sys/devices/system/cpu",
  "/sys/fs/cgroup",
  "/run/systemd/resolve",
  "/run/resolvconf",
  "/dev/null",
  "/dev/zero",
  "/dev/random",
  "/dev/urandom",
];
const SYSTEM_WRITE = ["/dev/null"];

/** The version of Landlock from which on a process cannot end those outside of its own rules. */
const LANDLOCK_WITH_SIGNALS = 6;

/** A user, with a group of the same number, to whom nothing else belongs. */
export interface Owner {
  id: number;
  /** A group that shards have in common. */
  shared: number;
}

/** What the machine has to keep shards apart. */
export interface Means {
  /** Each shard has a user of its own, which takes root. */
  users: boolean;
  /** Version of Landlock, the kernel's rules for files; 0: none. */
  landlock: number;
  /** What is weaker than it could be, and what to do about it; a sentence each. */
  weaknesses: string[];
}

/** Finds out what the machine has. @param places directories that another user must reach for shards to have one of their own */
export async function findMeans(
  { python, helper, places }: { python: string; helper: string; places: readonly string[] },
  uid = process.getuid?.() ?? 0,
): Promise<Means> {
  const { stdout } = await runCommand(python, ["-I", helper, "--probe"], { env: pythonEnvironment() });
  const { landlock } = z.object({ landlock: z.int() }).parse(JSON.parse(stdout));
  const weaknesses: string[] = [];
  const obstacle =
    uid === 0
      ? [...places, dirname(realpathSync(python))]
          .map((place) => firstClosed(place, OTHER))
          .find((found) => found !== undefined)
      : undefined;
  const users = uid === 0 && obstacle === undefined;
  if (obstacle !== undefined) {
    weaknesses.push(
      `shards run as root, without its privileges, since no other user can enter ${obstacle}: ${landlock > 0 ? "only the kernel's file rules keep them apart" : "nothing keeps them apart"}; use a directory that others may enter`,
    );
  }
  if (landlock === 0) {
    weaknesses.push(
      users
        ? "the kernel has no Landlock (Linux 5.13 or newer with landlock in its list of security modules): only users and file modes keep shards apart"
        : "the kernel has no Landlock (Linux 5.13 or newer with landlock in its list of security modules), and shards share one user: a tenant that runs code in its shard reaches the files of all; start the cluster as root, or use a newer kernel",
    );
  }
  if (!users && landlock > 0 && landlock < LANDLOCK_WITH_SIGNALS) {
    weaknesses.push(
      "the kernel's Landlock knows no rules for signals (Linux 6.12 or newer has them), and shards share one user: a tenant that runs code in its shard can end other shards; start the cluster as root, or use a newer kernel",
    );
  }
  return { users, landlock, weaknesses };
}

const OTHER = { uid: FIRST_UID, gid: FIRST_UID };

/** A user, or a group, that no file of ours belongs to. */
export function newId(): number {
  return randomInt(FIRST_UID, LAST_UID);
}

export interface Confined {
  owner?: Owner;
  /** Directories that it may change, beside those it always may. */
  write: readonly string[];
  /** What it may read beside the system. */
  read: readonly string[];
  memoryBytes?: number;
}

/** What multi_synapse/confine.py is told. */
export interface ConfinementSpec {
  uid?: number;
  gid?: number;
  groups?: number[];
  umask: number;
  limits: Record<string, number>;
  landlock: boolean;
  read: string[];
  write: string[];
}

/** What a program with this Python may reach. */
export function confinementSpec(
  means: Means,
  python: string,
  { owner, read, write, memoryBytes }: Confined,
): ConfinementSpec {
  return {
    ...(owner ? { uid: owner.id, gid: owner.id, groups: [owner.shared] } : {}),
    // What one shard writes of a tenant's media the next one must be able to read; who gets there, the directories above say.
    umask: owner ? 0o007 : 0o077,
    limits: {
      core: 0,
      nofile: DESCRIPTORS,
      data: memoryBytes ?? defaultMemory(),
      // Without a user of its own it would count what its user runs elsewhere.
      ...(owner ? { nproc: PROCESSES } : {}),
    },
    landlock: means.landlock > 0,
    read: [...SYSTEM_READ, ...ofPython(python), ...read],
    write: [...SYSTEM_WRITE, ...write],
  };
}

/** The program and its arguments, behind the helper that confines them. */
export function confinedCommand(
  means: Means,
  helper: string,
  command: readonly [program: string, ...args: string[]],
  confined: Confined,
): [program: string, ...args: string[]] {
  const [python] = command;
  return [python, "-I", helper, JSON.stringify(confinementSpec(means, python, confined)), ...command];
}

/** A virtual environment, and the Python that it was made with. */
export function ofPython(python: string): string[] {
  const environment = dirname(dirname(python));
  const real = existsSync(python) ? dirname(dirname(realpathSync(python))) : environment;
  // Python's own, where it is not the system's.
  return real === "/" || real === "/usr" ? [environment] : [environment, real];
}

/** One shard must not take the memory of all the others. */
export function defaultMemory(total = totalmem()): number {
  return Math.max(LEAST_MEMORY, Math.floor(total / 2));
}

/** The user that a directory belongs to, if it is one of ours. */
export function ownerOf(directory: string): number | undefined {
  const uid = statSync(directory, { throwIfNoEntry: false })?.uid ?? 0;
  return uid >= FIRST_UID && uid < LAST_UID ? uid : undefined;
}

/** The runtime first: no package takes the place of its parts. */
export function pythonPath(runtimePath: string, modules: string | undefined): string {
  return modules === undefined ? runtimePath : `${runtimePath}:${modules}`;
}

export function helperIn(runtimePath: string): string {
  return join(runtimePath, "multi_synapse/confine.py");
}
