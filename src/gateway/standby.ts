/**
 * For a process that is to take over from another one: all modules are in memory now, and nothing else has been done.
 * @returns when its parent says anything
 */
export async function untilNeeded(): Promise<void> {
  if (process.send === undefined) return;
  // The channel may have been told not to keep the process alive.
  const alive = setInterval(() => {}, 2 ** 30);
  const told = new Promise((resolve) => process.once("message", resolve));
  process.send({ standby: true });
  await told;
  clearInterval(alive);
}
