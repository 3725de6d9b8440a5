import type { ReactNode } from "react";
import { Link } from "@tanstack/react-router";
import { ApiFailure, sentence } from "../api/client.ts";

/** Says that there is nothing, and what would make it otherwise. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <strong>{title}</strong>
      {children}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p className="empty" role="status">
      Loading {what} …
    </p>
  );
}

/** What went wrong, in the API's words, and what a person can do about it. */
export function Failure({ error, retry }: { error: Error; retry?: () => void }) {
  const details = error instanceof ApiFailure ? error.details : [];
  return (
    <div className="notice" data-tone="bad" role="alert">
      <div className="row">
        <span>{sentence(error.message)}</span>
        {retry && (
          <button type="button" className="small" onClick={retry}>
            Try again
          </button>
        )}
      </div>
      {details.length > 1 && (
        <ul>
          {details.map((detail) => (
            <li key={detail}>{detail}</li>
          ))}
        </ul>
      )}
      {error instanceof ApiFailure && error.status === 0 && (
        <p className="hint">This page goes on as soon as the controller is back. Tenants are served meanwhile.</p>
      )}
    </div>
  );
}

export function NotFound() {
  return (
    <Empty title="There is no such page">
      <Link to="/overview">Go to the overview</Link>
    </Empty>
  );
}

/** A query's states before its data. @returns undefined where there is data */
export function Waiting({
  query,
  what,
}: {
  query: { error: Error | null; isPending: boolean; refetch: () => unknown };
  what: string;
}) {
  if (query.error) return <Failure error={query.error} retry={() => void query.refetch()} />;
  return query.isPending ? <Loading what={what} /> : null;
}
