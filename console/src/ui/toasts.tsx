import { useSyncExternalStore } from "react";

interface Toast {
  id: number;
  text: string;
}

const STAYS_MS = 6_000;

let toasts: Toast[] = [];
let next = 0;
const listeners = new Set<() => void>();

/** Tells that something has been asked for; it is seen on the page itself when it has come about. */
export function say(text: string): void {
  const id = (next += 1);
  replace([...toasts, { id, text }]);
  setTimeout(() => replace(toasts.filter((toast) => toast.id !== id)), STAYS_MS);
}

function replace(now: Toast[]): void {
  toasts = now;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function Toasts() {
  const shown = useSyncExternalStore(subscribe, () => toasts);
  return (
    <div className="toasts" role="status" aria-live="polite">
      {shown.map(({ id, text }) => (
        <div key={id} className="notice" data-tone="good">
          {text}
        </div>
      ))}
    </div>
  );
}
