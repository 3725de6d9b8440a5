import type { Logger } from "pino";
import type { AuditEntry, AuditLog } from "../../api/audit.ts";

/** What the API shows of it; the cluster's log collection has them all. */
const KEPT = 10_000;

/** The audit log on Kubernetes: lines of the controller's log with the key `audit`, kept by whatever collects logs. The newest are in memory too. */
export class LoggedAudit implements AuditLog {
  readonly #log: Logger;
  readonly #kept: AuditEntry[] = [];

  constructor(log: Logger) {
    this.#log = log;
  }

  append(entry: AuditEntry): void {
    this.#log.info({ audit: entry }, "audit");
    this.#kept.push(entry);
    if (this.#kept.length > 2 * KEPT) this.#kept.splice(0, KEPT);
  }

  async *read({ tail = KEPT }: { tail?: number }): AsyncGenerator<AuditEntry> {
    if (tail > 0) yield* this.#kept.slice(-Math.min(tail, KEPT));
  }
}
