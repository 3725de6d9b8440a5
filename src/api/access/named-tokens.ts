import { createHash, randomBytes } from "node:crypto";
import { z } from "zod";
import { UserError } from "../../model/errors.ts";
import type { Actor, Grant, NamedToken, Role } from "../../model/role.ts";
import { GrantFields, grantOf, PrincipalName, refineGrant } from "../../model/grant.ts";
import { JsonFile, type JsonFileOptions } from "./json-file.ts";
import type { LastUses } from "./last-uses.ts";

const EntrySchema = z
  .strictObject({
    name: PrincipalName,
    ...GrantFields,
    createdAt: z.string(),
    expiresAt: z.iso.datetime().optional(),
    /** Of the token, in hexadecimal: the token itself is in nobody's hands but its bearer's. */
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
  })
  .superRefine(refineGrant);
type Entry = z.infer<typeof EntrySchema>;

const FileSchema = z.strictObject({ tokens: z.array(EntrySchema) });

export interface TokenTerms extends Pick<Grant, "tenants"> {
  /** Absent: it does not expire. */
  expiresAt?: string;
}

/** The tokens of people and machines, and what each may do. */
export interface NamedTokens {
  actorOf(digest: string): Actor | undefined;
  list(): NamedToken[];
  /** @returns the token, which is shown this once @throws UserError AlreadyExists; Conflict where tokens are made elsewhere */
  create(name: string, role: Role, terms?: TokenTerms): string;
  /** @throws UserError NotFound; Conflict where tokens are made elsewhere */
  revoke(name: string): void;
}

/** Named tokens in a JSON file. A file that another program changes is read again at the next request. */
export class FileTokens implements NamedTokens {
  readonly #file: JsonFile<Map<string, Entry>>;
  readonly #uses: LastUses | undefined;
  readonly #now: () => Date;

  constructor(options: Omit<JsonFileOptions, "what"> & { uses?: LastUses; now?: () => Date }) {
    this.#file = new JsonFile({ ...options, what: "the tokens" }, new Map<string, Entry>(), (json) =>
      byDigest(FileSchema.parse(json).tokens),
    );
    this.#uses = options.uses;
    this.#now = options.now ?? (() => new Date());
  }

  actorOf(digest: string): Actor | undefined {
    const entry = this.#file.read().get(digest);
    if (!entry || this.#hasExpired(entry)) return undefined;
    this.#uses?.note(entry.name);
    return { name: entry.name, ...grantOf(entry) };
  }

  list(): NamedToken[] {
    return this.#sorted().map((entry) => {
      const { name, createdAt, expiresAt } = entry;
      const lastUsedAt = this.#uses?.of(name);
      return {
        name,
        ...grantOf(entry),
        createdAt,
        ...(expiresAt === undefined ? {} : { expiresAt }),
        // A token that was revoked may have had the name before.
        ...(lastUsedAt === undefined || lastUsedAt < entry.createdAt ? {} : { lastUsedAt }),
      };
    });
  }

  create(name: string, role: Role, { tenants, expiresAt }: TokenTerms = {}): string {
    // One that has expired is no use to anybody, and its name is free.
    const entries = this.#sorted().filter((entry) => entry.name !== name || !this.#hasExpired(entry));
    if (entries.some((entry) => entry.name === name))
      throw new UserError("AlreadyExists", `there is a token named ${name} already; revoke it first`);
    const token = `ss_${randomBytes(32).toString("base64url")}`;
    const sha256 = createHash("sha256").update(token).digest("hex");
    const createdAt = this.#now().toISOString();
    const expiry = expiresAt === undefined ? {} : { expiresAt };
    this.#replace([...entries, { name, ...grantOf({ role, tenants }), createdAt, ...expiry, sha256 }]);
    return token;
  }

  revoke(name: string): void {
    const entries = this.#sorted();
    const rest = entries.filter((entry) => entry.name !== name);
    if (rest.length === entries.length) throw new UserError("NotFound", `there is no token named ${name}`);
    this.#replace(rest);
    this.#uses?.forget(name);
  }

  #hasExpired({ expiresAt }: Entry): boolean {
    return expiresAt !== undefined && Date.parse(expiresAt) <= this.#now().getTime();
  }

  #sorted(): Entry[] {
    return [...this.#file.read().values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  #replace(tokens: Entry[]): void {
    this.#file.write({ tokens }, byDigest(tokens));
  }
}

function byDigest(tokens: Entry[]): Map<string, Entry> {
  return new Map(tokens.map((entry) => [entry.sha256, entry]));
}
