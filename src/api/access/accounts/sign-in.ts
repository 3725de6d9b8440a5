import {
  generateAuthenticationOptions,
  generateRegistrationOptions,
  verifyAuthenticationResponse,
  verifyRegistrationResponse,
  type AuthenticationResponseJSON,
  type PublicKeyCredentialCreationOptionsJSON,
  type PublicKeyCredentialRequestOptionsJSON,
  type RegistrationResponseJSON,
} from "@simplewebauthn/server";
import { Secret, TOTP } from "otpauth";
import { UserError } from "../../../model/errors.ts";
import type { Sessions } from "../sessions.ts";
import type { Account, Accounts } from "./accounts.ts";
import { Attempts } from "./attempts.ts";
import { hashOf, isPassword } from "./passwords.ts";

/** To touch a key, or to type a password and a code. */
const FLOW_MS = 10 * 60_000;
const ENROL = "synapse-shards enrolment";
const PASSKEY = "synapse-shards sign-in with a passkey";
const STEP_SECONDS = 30;
const NAME = "synapse-shards";

export interface AccountSignInOptions {
  accounts: Accounts;
  sessions: Pick<Sessions, "seal" | "unseal">;
  /** The console's: passkeys are bound to its host name. */
  consoleUrl: () => string;
  /** Keeps the keys of the codes unreadable where they are stored. */
  protect: { seal(text: string): string; open(text: string): string };
  now?: () => Date;
}

export interface Enrolment {
  account: Account;
  /** To be sent back with what the person made of it. */
  flow: string;
  passkey: PublicKeyCredentialCreationOptionsJSON;
  totp: { secret: string; uri: string };
}

/** How people of this cluster show who they are: with a passkey, or with a password and a code. */
export class AccountSignIn {
  readonly accounts: Accounts;
  readonly #options: AccountSignInOptions;
  readonly #now: () => Date;
  readonly #attempts: Attempts;
  /** Challenges that were answered, until they would have ended. */
  readonly #used = new Map<string, number>();

  constructor(options: AccountSignInOptions) {
    this.accounts = options.accounts;
    this.#options = options;
    this.#now = options.now ?? (() => new Date());
    this.#attempts = new Attempts(() => this.#now().getTime());
  }

  /** @throws UserError Unauthorized where the link is not good */
  async beginEnrolment(secret: string): Promise<Enrolment> {
    const account = this.accounts.enrolling(secret);
    if (!account) throw new UserError("Unauthorized", "the link has been used, or is too old: ask for another one");
    const passkey = await generateRegistrationOptions({
      rpName: NAME,
      rpID: this.#host,
      userName: account.name,
      userID: new Uint8Array(Buffer.from(account.handle, "base64url")),
      attestationType: "none",
      // Without a name typed first, so that nobody learns which names there are.
      authenticatorSelection: { residentKey: "required", userVerification: "required" },
    });
    const totp = totpOf(account.name, new Secret({ size: 20 }));
    const code = { secret: totp.secret.base32, uri: totp.toString() };
    const flow = await this.#seal(ENROL, { challenge: passkey.challenge, totp: code.secret, of: account.generation });
    return { account, flow, passkey, totp: code };
  }

  /** @throws UserError Unauthorized, InvalidInput */
  async enrolPasskey(secret: string, flow: string, response: RegistrationResponseJSON): Promise<Account> {
    const { challenge } = await this.#enrolling(secret, flow);
    const { verified, registrationInfo: found } = await verifyRegistrationResponse({
      response,
      expectedChallenge: challenge,
      expectedOrigin: this.#options.consoleUrl(),
      expectedRPID: this.#host,
    }).catch((error: unknown) => {
      throw new UserError("InvalidInput", "the passkey does not fit this page", { cause: error });
    });
    if (!verified || !found) throw new UserError("InvalidInput", "the passkey does not fit this page");
    const { id, publicKey, counter, transports = [] } = found.credential;
    const key = Buffer.from(publicKey).toString("base64url");
    const passkey = { id, publicKey: key, counter, transports, createdAt: this.#now().toISOString() };
    return this.#enrolled(secret, { passkey });
  }

  /** @throws UserError Unauthorized, InvalidInput where the code is another */
  async enrolPassword(
    secret: string,
    { flow, password, code }: { flow: string; password: string; code: string },
  ): Promise<Account> {
    const { totp, account } = await this.#enrolling(secret, flow);
    const usedStep = this.#stepOf(totpOf(account.name, Secret.fromBase32(totp)), code);
    if (usedStep === undefined)
      throw new UserError("InvalidInput", "the code is another: is the clock of the device with the app right?");
    const hash = await hashOf(password);
    return this.#enrolled(secret, { password: { hash, totp: this.#options.protect.seal(totp), usedStep } });
  }

  async beginPasskey(): Promise<{ flow: string; options: PublicKeyCredentialRequestOptionsJSON }> {
    const options = await generateAuthenticationOptions({ rpID: this.#host, userVerification: "required" });
    return { flow: await this.#seal(PASSKEY, { challenge: options.challenge }), options };
  }

  /** @throws UserError Unauthorized */
  async finishPasskey(flow: string, response: AuthenticationResponseJSON): Promise<Account> {
    const opened = await this.#options.sessions.unseal(flow, PASSKEY);
    const account = this.accounts.withHandle(response.response.userHandle ?? "");
    const passkey = account?.passkey?.id === response.id ? account.passkey : undefined;
    if (!opened || !account || !passkey || !this.#isFirstUse(opened)) throw unknownPasskey();
    const { verified, authenticationInfo: found } = await verifyAuthenticationResponse({
      response,
      expectedChallenge: String(opened["challenge"]),
      expectedOrigin: this.#options.consoleUrl(),
      expectedRPID: this.#host,
      credential: {
        id: passkey.id,
        publicKey: new Uint8Array(Buffer.from(passkey.publicKey, "base64url")),
        counter: passkey.counter,
        transports: passkey.transports,
      },
    }).catch((error: unknown) => {
      throw unknownPasskey(error);
    });
    if (!verified) throw unknownPasskey();
    const counted = { ...passkey, counter: found.newCounter };
    return this.accounts.change(account.name, (now) => {
      // It may have been reset while this was verified.
      if (now.generation !== account.generation || now.passkey?.id !== passkey.id) throw unknownPasskey();
      return { ...now, passkey: counted, ...this.#signedIn() };
    });
  }

  /** @throws UserError Unauthorized, whatever of it is wrong; RateLimited */
  async finishPassword({ name, password, code }: { name: string; password: string; code: string }): Promise<Account> {
    this.#attempts.begin(name);
    const known = this.accounts.find(name)?.password;
    const isRight = await isPassword(password, known?.hash);
    // As it is now: another request may have used the code meanwhile.
    const stored = this.accounts.find(name)?.password;
    const step =
      isRight && stored && stored.hash === known?.hash
        ? this.#stepOf(totpOf(name, Secret.fromBase32(this.#options.protect.open(stored.totp))), code)
        : undefined;
    if (!stored || step === undefined || step <= stored.usedStep)
      throw new UserError("Unauthorized", "the name, the password or the code is wrong, or the code has been used");
    this.#attempts.succeeded(name);
    return this.accounts.change(name, (now) => ({
      ...now,
      password: { ...stored, usedStep: step },
      ...this.#signedIn(),
    }));
  }

  get #host(): string {
    return new URL(this.#options.consoleUrl()).hostname;
  }

  #signedIn(): Pick<Account, "lastSignInAt"> {
    return { lastSignInAt: this.#now().toISOString() };
  }

  #enrolled(secret: string, means: Parameters<Accounts["enrol"]>[1]): Account {
    return this.accounts.enrol(secret, { ...means, ...this.#signedIn() });
  }

  #seal(purpose: string, content: Record<string, unknown>): Promise<string> {
    return this.#options.sessions.seal(content, { purpose, expiresAt: new Date(this.#now().getTime() + FLOW_MS) });
  }

  async #enrolling(secret: string, flow: string): Promise<{ challenge: string; totp: string; account: Account }> {
    const account = this.accounts.enrolling(secret);
    const opened = await this.#options.sessions.unseal(flow, ENROL);
    if (!account || !opened || opened["of"] !== account.generation)
      throw new UserError("Unauthorized", "the link has been used, or this took too long: open it again");
    return { challenge: String(opened["challenge"]), totp: String(opened["totp"]), account };
  }

  #isFirstUse({ id, expiresAt }: { id: string; expiresAt: Date }): boolean {
    const now = this.#now().getTime();
    for (const [old, until] of this.#used) if (until < now) this.#used.delete(old);
    if (this.#used.has(id)) return false;
    this.#used.set(id, expiresAt.getTime());
    return true;
  }

  /** The step whose code this is: the present one or its neighbours, as clocks differ. */
  #stepOf(totp: TOTP, code: string): number | undefined {
    const timestamp = this.#now().getTime();
    const delta = totp.validate({ token: code, timestamp, window: 1 });
    return delta === null ? undefined : Math.floor(timestamp / 1000 / STEP_SECONDS) + delta;
  }
}

function totpOf(name: string, secret: Secret): TOTP {
  return new TOTP({ issuer: NAME, label: name, secret, algorithm: "SHA1", digits: 6, period: STEP_SECONDS });
}

function unknownPasskey(cause?: unknown): UserError {
  return new UserError("Unauthorized", "this passkey is of no account here, or the page was open for too long", {
    cause,
  });
}
