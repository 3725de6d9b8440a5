/** What has to be undone when the suite ends, however it ends: shards and databases run in sessions of their own. */
const stack: (() => Promise<void>)[] = [];
let listening = false;

/** Registers work for the end; the function returned does it now, once. */
export function onEnd(undo: () => Promise<void>): () => Promise<void> {
  if (!listening) {
    listening = true;
    for (const signal of ["SIGINT", "SIGTERM"] as const)
      process.once(signal, () => void cleanUp().finally(() => process.exit(130)));
  }
  let done: Promise<void> | undefined;
  const once = () => (done ??= undo());
  stack.push(once);
  return once;
}

/** Undoes everything, the most recent first; a failure does not keep the others from being undone. */
export async function cleanUp(): Promise<void> {
  for (let undo = stack.pop(); undo; undo = stack.pop()) {
    await undo().catch((error: unknown) => console.error("cleaning up:", error));
  }
}
