import { z } from "zod";

const LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory";

/** Certificates that the cluster gets for its tenants' names; docs/certificates.md. */
export const CertificatesConfigSchema = z.strictObject({
  acme: z.strictObject({
    /** The authority's directory. */
    directory: z.url({ protocol: /^https$/ }).default(LETS_ENCRYPT),
    /** Where the authority writes to when something is wrong. */
    contact: z.array(z.email()).max(10).default([]),
    /** The authority's terms of service have been read. */
    agreeToTerms: z.literal(true),
    /** For authorities that ask who an account belongs to (RFC 8555, 7.3.4). */
    externalAccount: z.strictObject({ keyId: z.string().min(1), hmacKeyFile: z.string().min(1) }).optional(),
    /** PEM of authorities beside the machine's, for the directory, and for checks: an authority of one's own. */
    authorities: z.string().min(1).optional(),
    /** A program that publishes TXT records: called with `add` or `remove`, the name and the value. With it, names below `baseDomain` have one certificate. */
    dnsHook: z.string().min(1).optional(),
    /** Orders in any three hours, of the account. */
    ordersPerThreeHours: z.int().min(1).max(100_000).default(250),
    /** New certificates in any week for names below one registered domain. */
    ordersPerDomainAndWeek: z.int().min(1).max(100_000).default(45),
    /** How often it is looked whether something is to be ordered or renewed. */
    checkEverySeconds: z.number().min(0.5).max(86_400).default(60),
  }),
});
export type CertificatesConfig = z.infer<typeof CertificatesConfigSchema>;
export type AcmeConfig = CertificatesConfig["acme"];

/** A certificate with its key, PEM. */
export interface KeyPair {
  certificate: string;
  key: string;
}

export interface IssuedCertificate extends KeyPair {
  notBefore: string;
  notAfter: string;
  /** When the authority wants it to be renewed (RFC 9773), and when it is to be asked again. */
  suggested?: { start: string; end: string };
  askAgainAt?: string;
}

/** What is known about one name, or `*.DOMAIN`. */
export interface CertificateRecord {
  name: string;
  issued?: IssuedCertificate;
  /** An order that was begun: with a controller that is killed, its successor goes on with it. */
  order?: { url: string; key: string; begunAt: string };
  /** Failures in a row, the last one in words, and when it is tried again. */
  failures: number;
  problem?: { code: CertificateProblem; message: string };
  retryAt?: string;
  /** Somebody asked for a renewal before its time. */
  renewAsked?: boolean;
}

export const CERTIFICATE_PROBLEMS = {
  NotReachable: "the name does not lead to the gateway, so nothing is ordered for it",
  OrderFailed: "the authority did not issue it",
  LimitReached: "as many certificates as the configuration allows were ordered; it is the next one's turn later",
  RateLimited: "the authority wants no more orders for a while",
} as const;
export type CertificateProblem = keyof typeof CERTIFICATE_PROBLEMS;

/** As people see it. */
export interface CertificateView {
  name: string;
  /** The tenant that has the name; null: names below the base domain. */
  tenant: string | null;
  /** `Valid`, `Ordering`, `Waiting` (it is to be ordered), `Failed`, or `Ended`. */
  state: "Valid" | "Ordering" | "Waiting" | "Failed" | "Ended";
  notAfter: string | null;
  /** When it is to be renewed. */
  renewAt: string | null;
  problem: string | null;
  message: string | null;
  retryAt: string | null;
}

/** What gateways are told. */
export interface SharedCertificates {
  /** Names one run of the controller; versions count within it. */
  stream: string;
  version: number;
  /** With it a gateway answers the authority's question whether a host is ours (HTTP-01), for routed hosts; null: there is no account yet. */
  thumbprint: string | null;
  /** All there are. */
  names: string[];
  /** Those that are new to whoever asks. */
  certificates: ({ name: string } & KeyPair)[];
}
