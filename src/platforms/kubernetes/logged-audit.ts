import type { Logger } from "pino";
import { AuditChain, verifyChain } from "../../api/audit-chain.ts";
import type { AuditEntry, AuditLog, ChainVerification } from "../../api/audit.ts";

/** What the API shows of it; the cluster's log collection has them all. */
const KEPT = 10_000;

/** The audit log on Kubernetes: lines of the controller's log with the key `audit`, kept by whatever collects logs. The newest are in memory too. */
export class LoggedAudit implements AuditLog {
  readonly #log: Logger;
  readonly #kept: string[] = [];
  readonly #chain = new AuditChain();

  constructor(log: Logger) {
    this.#log = log;
  }

  append(entry: AuditEntry): void {
    const { chained, line, written } = this.#chain.link(entry);
    this.#log.info({ audit: chained }, "audit");
    written();
    this.#kept.push(line);
    if (this.#kept.length > 2 * KEPT) this.#kept.splice(0, KEPT);
  }

  async *read({ tail = KEPT }: { tail?: number }): AsyncGenerator<AuditEntry> {
    if (tail > 0) for (const line of this.#kept.slice(-Math.min(tail, KEPT))) yield JSON.parse(line) as AuditEntry;
  }

  /** Of what is in memory. */
  verify(): Promise<ChainVerification> {
    return verifyChain(this.#kept);
  }
}
