import { say } from "./toasts.tsx";

/** What is shown once. @param what one word for it */
export function Secret({ text, what }: { text: string; what: string }) {
  const copy = async () => {
    await navigator.clipboard?.writeText(text);
    say(`The ${what} is copied`);
  };
  return (
    <div className="command">
      <code>{text}</code>
      <button type="button" className="quiet small" onClick={() => void copy()}>
        Copy the {what}
      </button>
    </div>
  );
}
