/** How a database comes to another server: copied while the tenant runs, with a short switch, or while it is parked. */
export const DATABASE_MOVE_WAYS = ["online", "parked"] as const;
export type DatabaseMoveWay = (typeof DATABASE_MOVE_WAYS)[number];

/**
 * Where a copy that is made while the tenant runs stands.
 * Waiting: for something that `message` names. Copying: its rows are copied. Following: what was written since is copied. Switching: the copy is as the
 * database is, and the tenant is restarted with it. Exchanging: the start has come, and the copy takes the database's place; only that ends it.
 */
export const ONLINE_COPY_STEPS = ["Waiting", "Copying", "Following", "Switching", "Exchanging"] as const;

export interface OnlineCopy {
  step: (typeof ONLINE_COPY_STEPS)[number];
  /** Since when. */
  since: string;
  /** Of the copy so far, and of the database; roughly, as the copy is packed more densely. */
  bytes?: number;
  totalBytes?: number;
  /** Written to the server's log and not copied yet. */
  behindBytes?: number;
  /** Copies that were begun. */
  attempts: number;
  /** What it waits for, or why the last attempt came to nothing. */
  message?: string;
}

/** A database that is on its way to another server. */
export interface DatabaseMove {
  id: string;
  to: string;
  requestedAt: string;
  /** Absent: it is copied while the tenant is parked. */
  online?: OnlineCopy;
}

/** Whether the tenant's next start is with its database on the other server. */
export function isMoveDue(move: DatabaseMove | undefined): boolean {
  return move !== undefined && (move.online === undefined || move.online.step === "Switching" || isExchanging(move));
}

/** Whether it can be where the record does not say any more: it is not taken back then. */
export function isExchanging({ online }: DatabaseMove): boolean {
  return online === undefined || online.step === "Exchanging";
}
