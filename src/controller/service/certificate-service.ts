import type { CertificateView, SharedCertificates } from "../../model/certificates.ts";

/** What the controller offers about certificates. */
export interface CertificateService {
  /** By name. */
  list(): CertificateView[];
  /** Orders it again, before its time and whatever failed before. @throws UserError NotFound */
  renew(name: string): Promise<CertificateView>;
  /** What gateways need, and do not know yet; waits for up to `waitMs` where that is nothing. */
  shared(known: { stream?: string; version?: number }, waitMs: number): Promise<SharedCertificates>;
}
