import { Fragment } from "react";

/** A sentence in which what is between backticks is to be typed. */
export function Words({ text }: { text: string }) {
  const parts = text.split("`");
  return parts.map((part, index) =>
    index % 2 === 1 ? <code key={index}>{part}</code> : <Fragment key={index}>{part}</Fragment>,
  );
}
