/**
 * Ends this process when the one that started it has gone, even by kill -9: the channel between them closes then.
 * @param stop tries to end in order; the process ends after it, or after `graceMs`
 */
export function exitWithParent(stop: () => void | Promise<void> = () => {}, graceMs = 5_000): void {
  // Undefined: started by hand, without a channel.
  if (process.connected === undefined) return;
  const end = () => {
    setTimeout(() => process.exit(1), graceMs);
    Promise.resolve()
      .then(stop)
      .then(
        () => process.exit(1),
        () => process.exit(1),
      );
  };
  if (!process.connected) return end();
  process.once("disconnect", end);
  // The channel alone must not keep the process alive.
  process.channel?.unref();
}
