import { createHash, randomBytes } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { z } from "zod";
import { messageOf, UserError } from "../../model/errors.ts";
import { isTokenName, type Actor, type NamedToken, type Role } from "../../model/role.ts";

export const TokenName = z
  .string()
  .refine(isTokenName, "1 to 64 of a-z, 0-9, dot, underscore and hyphen, other than owner and gateway");
export const RoleSchema = z.enum(["viewer", "operator", "admin"]);

const FileSchema = z.strictObject({
  tokens: z.array(
    z.strictObject({
      name: TokenName,
      role: RoleSchema,
      createdAt: z.string(),
      /** Of the token, in hexadecimal: the token itself is in nobody's hands but its bearer's. */
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
    }),
  ),
});
type Entry = z.infer<typeof FileSchema>["tokens"][number];

/** The tokens of people, and what each may do. */
export interface NamedTokens {
  actorOf(digest: string): Actor | undefined;
  list(): NamedToken[];
  /** @returns the token, which is shown this once @throws UserError AlreadyExists */
  create(name: string, role: Role): string;
  /** @throws UserError NotFound */
  revoke(name: string): void;
}

/** Named tokens in a JSON file. A file that another program changes is read again at the next request. */
export class FileTokens implements NamedTokens {
  readonly #file: string;
  readonly #write: (text: string) => void;
  readonly #now: () => Date;
  readonly #onProblem: (message: string) => void;
  #entries = new Map<string, Entry>();
  #readAt = "";

  /**
   * @param write replaces the file's text at once and for good
   * @param onProblem told that the file cannot be read; the tokens that were read last stay good
   */
  constructor(
    file: string,
    write: (text: string) => void,
    onProblem: (message: string) => void,
    now: () => Date = () => new Date(),
  ) {
    this.#file = file;
    this.#write = write;
    this.#onProblem = onProblem;
    this.#now = now;
  }

  actorOf(digest: string): Actor | undefined {
    const entry = this.#current().get(digest);
    return entry && { name: entry.name, role: entry.role };
  }

  list(): NamedToken[] {
    return this.#sorted().map(({ name, role, createdAt }) => ({ name, role, createdAt }));
  }

  create(name: string, role: Role): string {
    const entries = this.#sorted();
    if (entries.some((entry) => entry.name === name))
      throw new UserError("AlreadyExists", `there is a token named ${name} already; revoke it first`);
    const token = `ss_${randomBytes(32).toString("base64url")}`;
    const sha256 = createHash("sha256").update(token).digest("hex");
    this.#replace([...entries, { name, role, createdAt: this.#now().toISOString(), sha256 }]);
    return token;
  }

  revoke(name: string): void {
    const entries = this.#sorted();
    const rest = entries.filter((entry) => entry.name !== name);
    if (rest.length === entries.length) throw new UserError("NotFound", `there is no token named ${name}`);
    this.#replace(rest);
  }

  #sorted(): Entry[] {
    return [...this.#current().values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  #replace(tokens: Entry[]): void {
    this.#write(`${JSON.stringify({ tokens }, null, 2)}\n`);
    this.#entries = new Map(tokens.map((entry) => [entry.sha256, entry]));
  }

  #current(): Map<string, Entry> {
    const found = statSync(this.#file, { throwIfNoEntry: false });
    const version = found ? `${found.ino}-${found.mtimeMs}-${found.size}` : "none";
    if (version === this.#readAt) return this.#entries;
    this.#readAt = version;
    try {
      const { tokens } = found ? FileSchema.parse(JSON.parse(readFileSync(this.#file, "utf8"))) : { tokens: [] };
      this.#entries = new Map(tokens.map((entry) => [entry.sha256, entry]));
    } catch (error) {
      this.#onProblem(`the tokens in ${this.#file} cannot be read, those from before stay good: ${messageOf(error)}`);
    }
    return this.#entries;
  }
}
