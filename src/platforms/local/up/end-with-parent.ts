/** For `node --import`: ends a part of the cluster in order when the process that started it has gone. */
import { exitWithParent } from "./parent.ts";

/** Above what a part needs for an orderly end. */
const GRACE_MS = 20_000;

exitWithParent(() => {
  process.kill(process.pid, "SIGTERM");
  return new Promise<void>(() => {});
}, GRACE_MS);
