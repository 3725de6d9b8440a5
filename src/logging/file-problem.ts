import { messageOf } from "../model/errors.ts";

const WORDS: Record<string, string> = {
  ENOSPC: "no space is left on its disk",
  EDQUOT: "the user's disk quota is used up",
  EROFS: "its file system is read-only",
  EACCES: "permission is denied",
  EPERM: "permission is denied",
  EMFILE: "the process has no file descriptors left; raise its limit (ulimit -n)",
  ENFILE: "the system has no file descriptors left",
  ENOENT: "the directory does not exist",
  EIO: "its disk reports an error",
};

/** What is wrong with a file, in words that its operator can act upon. */
export function describeFileProblem(error: unknown): string {
  return WORDS[(error as NodeJS.ErrnoException)?.code ?? ""] ?? messageOf(error);
}
