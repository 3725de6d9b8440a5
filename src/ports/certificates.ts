import type { CertificateRecord, KeyPair } from "../model/certificates.ts";

/** The account at an authority, and what it may not do for a while. */
export interface AcmeAccount {
  /** PEM. */
  key: string;
  url?: string;
  /** The authority wants nothing more before this. */
  pausedUntil?: string;
}

/** An order that was sent, for the limits. */
export interface OrderEntry {
  at: string;
  name: string;
  /** The registered domain. */
  domain: string;
  /** It replaces a certificate, as its authority suggested. */
  isRenewal: boolean;
}

/** Where certificates are kept. What is secret is sealed; what was written survives a crash. */
export interface CertificateStore {
  list(): Promise<CertificateRecord[]>;
  put(record: CertificateRecord): Promise<void>;
  remove(name: string): Promise<void>;
  /** @param directory the authority's */
  account(directory: string): Promise<AcmeAccount | undefined>;
  putAccount(directory: string, account: AcmeAccount): Promise<void>;
  /** Orders since a time, of that authority. */
  orders(directory: string, since: string): Promise<OrderEntry[]>;
  /** Notes an order, and forgets those of before `oldest`. */
  addOrder(directory: string, order: OrderEntry, oldest: string): Promise<void>;
}

/** The authority wants nothing more for a while. */
export class RateLimited extends Error {
  readonly retryAfterSeconds: number;
  constructor(message: string, retryAfterSeconds: number) {
    super(message);
    this.name = "RateLimited";
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** A certificate authority that speaks ACME (RFC 8555). Every call may throw `RateLimited`, or an error in the authority's words. */
export interface CertificateAuthority {
  /** Makes the account, or finds the one of that key. @returns its URL */
  register(account: AcmeAccount): Promise<string>;
  /** @param replaces PEM of the certificate that it renews, if the authority suggested that @returns the order's URL */
  begin(account: AcmeAccount, name: string, replaces?: string): Promise<string>;
  /** Proves that the name is ours, and gets the certificate; may be called again for the same order. @param key PEM, of the certificate */
  complete(account: AcmeAccount, order: { url: string; key: string; name: string }): Promise<KeyPair>;
  /** When a certificate should be renewed (RFC 9773); undefined where the authority does not say. */
  renewalInfo(certificate: string): Promise<{ start: string; end: string; retryAfterSeconds: number } | undefined>;
  /** @returns PEM */
  newKey(): Promise<string>;
  /** What the authority asks a host for, after the token. */
  thumbprintOf(accountKey: string): string;
}

/** Whether a name leads to a gateway that answers for that account, as the authority will see it. @returns why not, in words */
export type Reachability = (host: string, thumbprint: string) => Promise<string | undefined>;
