import { useEffect, type ReactNode } from "react";

export function Page({
  title,
  lead,
  actions,
  children,
}: {
  title: ReactNode;
  /** What the browser's tab says; default: the title. */
  lead?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}) {
  useEffect(() => {
    document.title = `${typeof title === "string" ? title : "synapse-shards"} · synapse-shards`;
  }, [title]);
  return (
    <>
      <div className="head">
        <div>
          <h1>{title}</h1>
          {lead && <p>{lead}</p>}
        </div>
        {actions && <div className="row">{actions}</div>}
      </div>
      <div className="stack">{children}</div>
    </>
  );
}

export function Card({
  title,
  aside,
  flush = false,
  children,
}: {
  title: string;
  aside?: ReactNode;
  /** Without a margin inside: for tables and lists. */
  flush?: boolean;
  children: ReactNode;
}) {
  return (
    <section className="card" aria-label={title}>
      <header>
        <h2>{title}</h2>
        {aside}
      </header>
      <div className={flush ? undefined : "body"}>{children}</div>
    </section>
  );
}
