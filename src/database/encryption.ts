import { messageOf, UserError } from "../model/errors.ts";

/** A server, and how it is spoken with. */
export interface Server {
  host: string;
  port: number;
  /** As libpq's `sslmode`; `disable` if not given. */
  sslMode?: string;
  /** As libpq's `sslrootcert`, in PEM; else the public authorities and those of NODE_EXTRA_CA_CERTS. */
  authorities?: string;
}

/** TLS and how its certificate is verified, or none. */
export type Encryption = false | { rejectUnauthorized: boolean; ca?: string; checkServerIdentity?: () => undefined };

const ENCRYPTED = { rejectUnauthorized: false };

/** What to try, in order, as libpq does by `sslmode`. */
export function encryptionOf({ sslMode, authorities }: Server): readonly [Encryption, Encryption?] {
  const verified = { rejectUnauthorized: true, ...(authorities === undefined ? {} : { ca: authorities }) };
  const byAuthority = { ...verified, checkServerIdentity: () => undefined };
  switch (sslMode) {
    case "allow":
      return [false, ENCRYPTED];
    case "prefer":
      return [ENCRYPTED, false];
    case "require":
      // Who names authorities has them asked, as with libpq.
      return [authorities === undefined ? ENCRYPTED : byAuthority];
    case "verify-ca":
      return [byAuthority];
    case "verify-full":
      return [verified];
    case undefined:
    case "disable":
      return [false];
    default:
      // Without TLS it would be less than somebody meant.
      throw new UserError(
        "InvalidConfig",
        `sslmode ${sslMode} is not known: it is disable, allow, prefer, require, verify-ca or verify-full`,
      );
  }
}

/** What a certificate is refused for, or undefined where the error is another one. */
export function refusedCertificate(error: unknown, { host, port, sslMode }: Server): UserError | undefined {
  // Node's words for what is wrong with a certificate.
  const code = String((error as { code?: unknown }).code ?? "");
  if (
    !/^(ERR_TLS_CERT|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|CERT_|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH)/.test(code)
  )
    return undefined;
  return new UserError(
    "Unauthorized",
    `PostgreSQL at ${host}:${port} has a certificate that sslmode ${sslMode} refuses: ${messageOf(error)}`,
    { cause: error },
  );
}

export function withoutTls({ host, port, sslMode }: Server): UserError {
  return new UserError(
    "Environment",
    `PostgreSQL at ${host}:${port} has no TLS, which sslmode ${sslMode} asks for: have its administrator set \`ssl = on\`, or change sslmode`,
  );
}
