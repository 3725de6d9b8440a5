/** Failures that are the machine's and not the program's: by code, in words that their operator can act upon. */
const WORDS: Record<string, string> = {
  ENOSPC: "no space is left on the disk: free some",
  EDQUOT: "the user's disk quota is used up",
  EROFS: "the file system is read-only: make it writable, or give another directory",
  EACCES: "permission is denied",
  EPERM: "permission is denied",
  EMFILE: "the process has no file descriptors left: raise its limit (ulimit -n)",
  ENFILE: "the machine has no file descriptors left",
  ENOMEM: "the machine has no memory left",
  EAGAIN: "no further process can be started: memory or the user's limit of processes (ulimit -u) is used up",
  EIO: "the disk reports an error",
};
/** Of SQLite, by its primary result code. */
const SQLITE_WORDS: Record<number, string> = {
  7: WORDS["ENOMEM"]!,
  8: WORDS["EROFS"]!,
  10: WORDS["EIO"]!,
  13: WORDS["ENOSPC"]!,
  14: "the file cannot be opened: permission, descriptors (ulimit -n) or space is missing",
};

/** @returns what is wrong with the machine, if an error says so; undefined for any other error */
export function machineProblem(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, errcode, path, syscall } = error as NodeJS.ErrnoException & { errcode?: number };
  if (typeof errcode === "number") return SQLITE_WORDS[errcode & 0xff];
  const words = WORDS[code ?? ""];
  if (words === undefined) return undefined;
  const what = path ?? (syscall?.startsWith("spawn") ? syscall.replace(/^spawn /, "") : undefined);
  return what === undefined ? words : `${what}: ${words}`;
}
