/** A key is part of a path: one that leads out of the target is a bug, or a catalogue that somebody else has written to. */
export function checkedKey(key: string): string {
  const parts = key.split("/");
  if (parts.every((part) => /^[A-Za-z0-9_-][A-Za-z0-9._-]*$/.test(part))) return key;
  throw new Error(`${JSON.stringify(key)} is no key of a backup target`);
}
