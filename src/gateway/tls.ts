import { createPrivateKey, randomBytes, webcrypto, X509Certificate as NodeCertificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
import { createSecureContext, type SecureContext } from "node:tls";
import "../certificates/reflect-metadata.ts";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { UserError } from "../model/errors.ts";
import { isWithin, NAME_CONSTRAINTS, permittedDomains } from "../certificates/name-constraints.ts";
import { dropOldest } from "../model/drop-oldest.ts";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY_MS = 86_400_000;
/** Short, as nobody revokes them; renewed after half of it. */
const MINTED_DAYS = 7;
/** Clocks of clients may be behind. */
const BACKDATED_MS = DAY_MS;
/** How long until a host's certificate is looked up again, so that replaced files are taken up. */
const CACHE_MS = 60_000;
/** Hosts whose certificate is kept; beyond it, the longest unused goes. */
const CACHE_ENTRIES = 5_000;

const HOST_NAME = /^[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9])?$/;

export interface CertificateOptions {
  directory: string;
  authority: { certificate: string; key: string } | null;
  /** What the controller got for it. */
  shared?(host: string): { certificate: string; key: string } | undefined;
  /** Whether certificates may be minted for it. */
  isRouted(host: string): boolean;
  /** A host that should have a certificate has none that works. */
  onProblem(host: string, error: unknown): void;
}

interface Minted {
  certificate: string;
  key: string;
  renewAt: number;
}

/** Certificates by server name: the operator's files first, then what the controller got, else minted by the local authority. */
export class Certificates {
  readonly #options: CertificateOptions;
  #authority: Authority | undefined;
  readonly #contexts = new Map<string, { context: Promise<SecureContext | undefined>; until: number }>();
  readonly #minted = new Map<string, Minted>();

  private constructor(options: CertificateOptions, authority: Authority | undefined) {
    this.#options = options;
    this.#authority = authority;
  }

  /** @throws UserError InvalidConfig when the authority's files are missing or do not fit each other */
  static async load(options: CertificateOptions): Promise<Certificates> {
    return new Certificates(options, options.authority ? await Authority.load(options.authority) : undefined);
  }

  /** Takes up replaced files now, the authority's too. @throws UserError InvalidConfig; those before stay in use then */
  async reload(): Promise<void> {
    const { authority } = this.#options;
    if (authority) {
      this.#authority = await Authority.load(authority);
      this.#minted.clear();
    }
    this.#contexts.clear();
  }

  /** There are others than before. */
  forgetContexts(): void {
    this.#contexts.clear();
  }

  /** The context for a name that a client asked for, or undefined: no such host here. */
  async contextFor(serverName: string): Promise<SecureContext | undefined> {
    const host = serverName.toLowerCase();
    if (!HOST_NAME.test(host) || host.includes("..")) return undefined;
    const cached = this.#contexts.get(host);
    this.#contexts.delete(host);
    const entry =
      cached && cached.until > Date.now() ? cached : { context: this.#make(host), until: Date.now() + CACHE_MS };
    this.#contexts.set(host, entry);
    dropOldest(this.#contexts, CACHE_ENTRIES);
    let context: SecureContext | undefined;
    try {
      context = await entry.context;
    } catch (error) {
      this.#options.onProblem(host, error);
    }
    // Names that lead nowhere are not remembered: anybody can make them up.
    if (context === undefined && this.#contexts.get(host) === entry) this.#contexts.delete(host);
    return context;
  }

  async #make(host: string): Promise<SecureContext | undefined> {
    const files = await this.#fromFiles(host);
    if (files) return createSecureContext({ cert: files.certificate, key: files.key });
    if (!this.#options.isRouted(host)) return undefined;
    const shared = this.#options.shared?.(host);
    if (shared) return createSecureContext({ cert: shared.certificate, key: shared.key });
    if (!this.#authority) return undefined;
    let minted = this.#minted.get(host);
    if (!minted || minted.renewAt < Date.now()) minted = await (await this.#presentAuthority()).mint(host);
    this.#minted.delete(host);
    this.#minted.set(host, minted);
    dropOldest(this.#minted, CACHE_ENTRIES);
    return createSecureContext({ cert: minted.certificate, key: minted.key });
  }

  /** Its certificate is renewed while the gateway runs. */
  async #presentAuthority(): Promise<Authority> {
    const files = this.#options.authority!;
    const { mtimeMs } = await stat(files.certificate);
    if (mtimeMs !== this.#authority!.mtimeMs) this.#authority = await Authority.load(files);
    return this.#authority!;
  }

  async #fromFiles(host: string): Promise<{ certificate: Buffer; key: Buffer } | undefined> {
    const path = (ending: string): string => join(this.#options.directory, `${host}.${ending}`);
    try {
      const [certificate, key] = await Promise.all([readFile(path("crt")), readFile(path("key"))]);
      return { certificate, key };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  }
}

/** The local certificate authority: for one machine and for tests. Its certificate is what clients are told to trust. */
class Authority {
  readonly #certificate: X509Certificate;
  readonly #key: webcrypto.CryptoKey;
  readonly #algorithm: { name: string; hash: string };
  /** The names that it may sign for; undefined: all. */
  readonly #domains: string[] | undefined;
  /** Of its certificate's file. */
  readonly mtimeMs: number;

  private constructor(
    certificate: X509Certificate,
    key: webcrypto.CryptoKey,
    algorithm: { name: string; hash: string },
    mtimeMs: number,
  ) {
    this.#certificate = certificate;
    this.#key = key;
    this.#algorithm = algorithm;
    this.mtimeMs = mtimeMs;
    const constraints = certificate.getExtension(NAME_CONSTRAINTS);
    this.#domains = constraints ? permittedDomains(Buffer.from(constraints.value)) : undefined;
  }

  static async load(files: { certificate: string; key: string }): Promise<Authority> {
    try {
      const { mtimeMs } = await stat(files.certificate);
      const [certificatePem, keyPem] = await Promise.all([
        readFile(files.certificate, "utf8"),
        readFile(files.key, "utf8"),
      ]);
      const key = createPrivateKey(keyPem);
      if (!new NodeCertificate(certificatePem).checkPrivateKey(key))
        throw new Error("the key is not the certificate's");
      const algorithm = importAlgorithm(key.asymmetricKeyType, key.asymmetricKeyDetails?.namedCurve);
      const der = key.export({ type: "pkcs8", format: "der" });
      const imported = await webcrypto.subtle.importKey("pkcs8", der, algorithm, false, ["sign"]);
      return new Authority(new X509Certificate(certificatePem), imported, algorithm, mtimeMs);
    } catch (error) {
      throw new UserError(
        "InvalidConfig",
        `https.ca (${files.certificate}, ${files.key}): ${(error as Error).message}`,
      );
    }
  }

  /** @throws Error for a name that clients would not take from it */
  async mint(host: string): Promise<Minted> {
    if (this.#domains && !isWithin(host, this.#domains))
      throw new Error(
        `the local certificate authority may sign for ${this.#domains.join(", ")} only: put ${host}.crt and ${host}.key into the directory of certificates, or name the domain in gateway.certificateDomains`,
      );
    const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    const now = Date.now();
    const notAfter = Math.min(now + MINTED_DAYS * DAY_MS, this.#certificate.notAfter.getTime());
    const certificate = await X509CertificateGenerator.create({
      // Positive and never zero, as certificates demand.
      serialNumber: `01${randomBytes(15).toString("hex")}`,
      // A common name holds 64 characters; clients read the alternative name anyway.
      subject: `CN=${host.slice(0, 64)}`,
      issuer: this.#certificate.subject,
      notBefore: new Date(now - BACKDATED_MS),
      notAfter: new Date(notAfter),
      publicKey: keys.publicKey,
      signingKey: this.#key,
      signingAlgorithm: this.#algorithm,
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
        new SubjectAlternativeNameExtension([{ type: isIP(host) ? "ip" : "dns", value: host }]),
        await AuthorityKeyIdentifierExtension.create(this.#certificate),
      ],
    });
    const key = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
    return {
      certificate: `${certificate.toString("pem")}\n${this.#certificate.toString("pem")}\n`,
      key: `-----BEGIN PRIVATE KEY-----\n${key.match(/.{1,64}/g)!.join("\n")}\n-----END PRIVATE KEY-----\n`,
      renewAt: now + (notAfter - now) / 2,
    };
  }
}

function importAlgorithm(
  type: string | undefined,
  curve: string | undefined,
): { name: string; hash: string; namedCurve?: string } {
  if (type === "rsa") return { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  const namedCurve = { prime256v1: "P-256", secp384r1: "P-384" }[curve ?? ""];
  if (type === "ec" && namedCurve)
    return { name: "ECDSA", namedCurve, hash: namedCurve === "P-256" ? "SHA-256" : "SHA-384" };
  throw new Error(
    `a key of type ${type}${curve ? ` (${curve})` : ""} cannot be used; use RSA, or EC on P-256 or P-384`,
  );
}
