import { createHash, randomBytes } from "node:crypto";
import { z } from "zod";
import { UserError } from "../../../model/errors.ts";
import { GrantFields, grantOf, PrincipalName, refineGrant } from "../../../model/grant.ts";
import type { Actor, Grant } from "../../../model/role.ts";
import { JsonFile, type JsonFileOptions } from "../json-file.ts";

/** Long enough for the next working day; whoever has the link is the person. */
const ENROLMENT_MS = 24 * 3_600_000;

const PasskeySchema = z.strictObject({
  id: z.string(),
  publicKey: z.string(),
  /** Of signatures; one that goes back is a copy. */
  counter: z.int(),
  transports: z.array(z.string()),
  createdAt: z.string(),
});

const EntrySchema = z
  .strictObject({
    name: PrincipalName,
    ...GrantFields,
    createdAt: z.string(),
    /** Of the means to sign in: a reset begins a new one, which ends all sessions of the one before. */
    generation: z.int(),
    /** What a passkey knows the account by. */
    handle: z.string(),
    enrolment: z.strictObject({ sha256: z.string(), expiresAt: z.string() }).optional(),
    passkey: PasskeySchema.optional(),
    password: z.strictObject({ hash: z.string(), totp: z.string(), usedStep: z.int() }).optional(),
    lastSignInAt: z.string().optional(),
  })
  .superRefine(refineGrant);
export type Account = z.infer<typeof EntrySchema>;
export type Passkey = z.infer<typeof PasskeySchema>;
/** How somebody signs in from now on. */
export type Means = Pick<Account, "passkey"> | Pick<Account, "password">;

const FileSchema = z.strictObject({ accounts: z.array(EntrySchema) });

/** An account as people see it. */
export interface AccountView extends Grant {
  name: string;
  createdAt: string;
  /** Absent: nobody has used the link yet. */
  signsInWith?: "passkey" | "password";
  /** Until when the link is good that nobody has used yet. */
  enrolmentExpiresAt?: string;
  lastSignInAt?: string;
}

/** People of this cluster, in a JSON file that only its owner reads. */
export class Accounts {
  readonly #file: JsonFile<Account[]>;
  readonly #now: () => Date;

  constructor(options: Omit<JsonFileOptions, "what">, now: () => Date = () => new Date()) {
    this.#file = new JsonFile({ ...options, what: "the accounts" }, [], (json) => FileSchema.parse(json).accounts);
    this.#now = now;
  }

  list(): AccountView[] {
    return this.#file
      .read()
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .map((account) => {
        const { name, createdAt, enrolment, passkey, password, lastSignInAt } = account;
        return {
          name,
          ...grantOf(account),
          createdAt,
          ...(passkey ? { signsInWith: "passkey" as const } : password ? { signsInWith: "password" as const } : {}),
          ...(enrolment ? { enrolmentExpiresAt: enrolment.expiresAt } : {}),
          ...(lastSignInAt === undefined ? {} : { lastSignInAt }),
        };
      });
  }

  get isEmpty(): boolean {
    return this.#file.read().length === 0;
  }

  /** @returns what the link to enrol has @throws UserError AlreadyExists */
  create(name: string, grant: Grant): { secret: string; expiresAt: string } {
    if (this.find(name)) throw new UserError("AlreadyExists", `there is an account ${name} already`);
    const { secret, enrolment } = this.#enrolment();
    const createdAt = this.#now().toISOString();
    // Never one that an account of the name had before: its sessions are not this one's.
    const generation = this.#now().getTime();
    const handle = randomBytes(32).toString("base64url");
    this.#save([...this.#file.read(), { name, ...grantOf(grant), createdAt, generation, handle, enrolment }]);
    return { secret, expiresAt: enrolment.expiresAt };
  }

  /** Takes all means to sign in away, ends the sessions, and begins again. @throws UserError NotFound */
  reset(name: string): { secret: string; expiresAt: string } {
    const { secret, enrolment } = this.#enrolment();
    this.change(name, ({ passkey: _passkey, password: _password, ...rest }) => ({
      ...rest,
      enrolment,
      generation: Math.max(rest.generation + 1, this.#now().getTime()),
    }));
    return { secret, expiresAt: enrolment.expiresAt };
  }

  /** @throws UserError NotFound */
  remove(name: string): void {
    const accounts = this.#file.read();
    if (!this.find(name)) throw noAccount(name);
    this.#save(accounts.filter((account) => account.name !== name));
  }

  find(name: string): Account | undefined {
    return this.#file.read().find((account) => account.name === name);
  }

  withHandle(handle: string): Account | undefined {
    return this.#file.read().find((account) => account.handle === handle);
  }

  /** Whose link this is, while it is good and nobody has used it. */
  enrolling(secret: string): Account | undefined {
    const digest = sha256(secret);
    const found = this.#file.read().find(({ enrolment }) => enrolment?.sha256 === digest);
    return found?.enrolment && Date.parse(found.enrolment.expiresAt) > this.#now().getTime() ? found : undefined;
  }

  /** Uses the link up. @throws UserError Unauthorized where somebody else was quicker */
  enrol(secret: string, means: Means): Account {
    const account = this.enrolling(secret);
    if (!account) throw new UserError("Unauthorized", "the link has been used, or is too old: ask for another one");
    return this.change(account.name, ({ enrolment: _enrolment, ...rest }) => ({ ...rest, ...means }));
  }

  actorOf(name: string, generation: number): Actor | undefined {
    const account = this.find(name);
    return account?.generation === generation ? { name: `account:${name}`, ...grantOf(account) } : undefined;
  }

  /** @throws UserError NotFound */
  change(name: string, by: (account: Account) => Account): Account {
    const account = this.find(name);
    if (!account) throw noAccount(name);
    const changed = by(account);
    this.#save(this.#file.read().map((one) => (one.name === name ? changed : one)));
    return changed;
  }

  #enrolment(): { secret: string; enrolment: NonNullable<Account["enrolment"]> } {
    const secret = randomBytes(32).toString("base64url");
    const expiresAt = new Date(this.#now().getTime() + ENROLMENT_MS).toISOString();
    return { secret, enrolment: { sha256: sha256(secret), expiresAt } };
  }

  #save(accounts: Account[]): void {
    this.#file.write({ accounts }, accounts);
  }
}

function noAccount(name: string): UserError {
  return new UserError("NotFound", `there is no account ${name}`);
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
