import { createHash } from "node:crypto";
import { chownSync, existsSync, lstatSync, readFileSync, realpathSync, statSync, symlinkSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { UserError } from "../../../model/errors.ts";
import { firstClosed, makeDirectory } from "../files.ts";

/** Where root's databases go when the cluster's own directory is one that PostgreSQL's user cannot reach. */
const ROOT_FALLBACK = "/var/lib/synapse-shards";

/** The user PostgreSQL runs as: undefined is our own, since only root has to become somebody else. */
export interface RunAs {
  name: string;
  uid: number;
  gid: number;
}

/** For a process that is to run as this user. */
export function identityOf(user: RunAs | undefined): { uid?: number; gid?: number } {
  return user ? { uid: user.uid, gid: user.gid } : {};
}

/** PostgreSQL refuses to run as root. Data that is there already stays with the user that owns it. */
export function chooseUser(
  directory: string,
  uid = process.getuid?.() ?? 0,
  passwd = readFileSync("/etc/passwd", "utf8"),
): RunAs | undefined {
  if (uid !== 0) return undefined;
  const users = passwd.split("\n").map((line) => line.split(":"));
  const owner = existsSync(join(directory, "PG_VERSION")) ? statSync(directory).uid : 0;
  const wanted = (fields: string[]) => (owner === 0 ? undefined : Number(fields[2]) === owner);
  for (const name of ["postgres", "nobody"]) {
    const fields = users.find((candidate) => wanted(candidate) ?? candidate[0] === name);
    if (fields) return { name: fields[0]!, uid: Number(fields[2]), gid: Number(fields[3]) };
  }
  throw new UserError(
    "Environment",
    "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as: add one, or run as another user",
  );
}

/**
 * The directory for the data: the wished one, or, where the user cannot get to it, one below /var/lib, with a link to it in the
 * wished place. So the next start finds it whatever the permissions are by then.
 */
export function placeForData(wished: string, user: RunAs | undefined, onProgress: (step: string) => void): string {
  const path = resolve(wished);
  if (lstatSync(path, { throwIfNoEntry: false })) return realpathSync(path);
  makeDirectory(dirname(path), user ? 0o711 : 0o700);
  const obstacle = user && firstClosed(dirname(path), user);
  if (!user || obstacle === undefined) return path;
  const other = join(ROOT_FALLBACK, createHash("sha256").update(path).digest("hex").slice(0, 12), "postgres");
  makeDirectory(dirname(other), 0o711);
  makeDirectory(other, 0o700);
  chownSync(other, user.uid, user.gid);
  symlinkSync(other, path);
  onProgress(`the user ${user.name} cannot enter ${obstacle}: databases are kept in ${other}`);
  return other;
}
