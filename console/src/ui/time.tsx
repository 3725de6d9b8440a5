import { useEffect, useState } from "react";
import { clockTime, duration } from "./format.ts";

/** When something was, in the viewer's own time; the exact time in UTC is its title. */
export function Time({ at }: { at: string }) {
  return (
    <time dateTime={at} title={at}>
      {clockTime(at)}
    </time>
  );
}

/** How long ago it was, kept current. */
export function Ago({ at }: { at: string }) {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 10_000);
    return () => clearInterval(timer);
  }, []);
  const passed = Math.max(0, (now - Date.parse(at)) / 1000);
  return (
    <time dateTime={at} title={at}>
      {passed < 10 ? "just now" : `${duration(passed)} ago`}
    </time>
  );
}
