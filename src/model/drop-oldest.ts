/** Keeps a map or a set to `most` entries: the one that was put in first goes. */
export function dropOldest(of: Map<string, unknown> | Set<string>, most: number): void {
  const [oldest] = of.keys();
  if (of.size > most && oldest !== undefined) of.delete(oldest);
}
