import { useEffect, useId, useRef, useState, type ReactNode } from "react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Command } from "./command.tsx";
import { Failure } from "./states.tsx";
import { say } from "./toasts.tsx";

export interface Action {
  title: string;
  /** What will happen, and what will not. */
  children: ReactNode;
  /** The command that does the same. */
  command: string;
  /** What the button says. */
  verb: string;
  /** What is said when it has been asked for. */
  done: string;
  isDangerous?: boolean;
  /** Has to be typed first. */
  typed?: string;
  act: () => Promise<unknown>;
}

/** Asks before something is changed: a dialog that says what happens, and how a terminal does it. */
export function ActionDialog({ action, close }: { action: Action; close: () => void }) {
  const { title, children, command, verb, done, isDangerous = false, typed, act } = action;
  const client = useQueryClient();
  const [text, setText] = useState("");
  const mutation = useMutation({
    mutationFn: act,
    onSuccess: () => {
      void client.invalidateQueries();
      say(done);
      close();
    },
  });
  return (
    <Dialog title={title} close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          mutation.mutate();
        }}
      >
        <h2>{title}</h2>
        <div className="stack">{children}</div>
        {typed !== undefined && (
          <label>
            <span>
              Type <code>{typed}</code> to confirm
            </span>
            <input value={text} autoComplete="off" onChange={({ target }) => setText(target.value)} />
          </label>
        )}
        <Command text={command} />
        {mutation.error && <Failure error={mutation.error} />}
        <footer>
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button
            className={isDangerous ? "primary danger" : "primary"}
            disabled={mutation.isPending || (typed !== undefined && text !== typed)}
          >
            {verb}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

export function Dialog({
  title,
  isWide = false,
  close,
  children,
}: {
  title: string;
  isWide?: boolean;
  close: () => void;
  children: ReactNode;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} className={isWide ? "wide" : undefined} onClose={close} aria-labelledby={id}>
      <span id={id} className="visually-hidden">
        {title}
      </span>
      {children}
    </dialog>
  );
}
