import type { ReactNode } from "react";
import { Dialog } from "../../ui/action.tsx";
import { Command } from "../../ui/command.tsx";

/** Shows what nothing shows again. */
export function SecretDialog({
  title,
  secret,
  close,
  children,
}: {
  title: string;
  secret: string;
  close: () => void;
  children: ReactNode;
}) {
  return (
    <Dialog title={title} close={close}>
      <h2>{title}</h2>
      <div className="stack">{children}</div>
      <Command text={secret} />
      <footer>
        <button type="button" className="primary" onClick={close}>
          Done
        </button>
      </footer>
    </Dialog>
  );
}
