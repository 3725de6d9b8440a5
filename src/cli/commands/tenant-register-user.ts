import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import type { Command } from "commander";
import type { Client } from "../client.ts";
import { CliError, EXIT } from "../errors.ts";
import { readInput, withClient } from "../options.ts";
import { show } from "../format.ts";
import { tenantPath } from "./tenant-path.ts";

/** Registers a user. @returns with the password, where it was made here */
export async function register(
  client: Client,
  tenant: string,
  { user: username, admin, password: given }: { user: string; admin: boolean; password?: string },
): Promise<{ userId: string; password?: string }> {
  const password = given ?? randomBytes(15).toString("base64url");
  const { userId } = await client.call<{ userId: string }>("POST", `${tenantPath(tenant)}/users`, {
    body: { username, password, admin },
    has: ["userId"],
  });
  return { userId, ...(given === undefined ? { password } : {}) };
}

export function registered({ userId, password }: { userId: string; password?: string }): string {
  return `registered ${userId}${password === undefined ? "" : `\npassword: ${password}`}`;
}

interface RegisterOptions {
  user: string;
  password?: string;
  passwordFile?: string;
  admin?: boolean;
}

export function addRegisterUser(tenant: Command): void {
  tenant
    .command("register-user")
    .description("register a user of a tenant; without a password given, one is made and printed")
    .argument("<name>", "name of the tenant")
    .requiredOption("-u, --user <user>", "the part of the user id before the colon")
    .option(
      "-p, --password <password>",
      "password; other users of this machine may see it, so rather use --password-file",
    )
    .option("--password-file <file>", "file whose first line is the password (-: stdin, or asked for at a terminal)")
    .option("--admin", "make the user an administrator of the homeserver")
    .action((name: string, options: RegisterOptions, command: Command) =>
      withClient(command, async (client, { output }) => {
        const { user, admin = false } = options;
        const made = await register(client, name, { user, admin, password: await givenPassword(options) });
        show(output, made, () => registered(made));
      }),
    );
}

export async function givenPassword({
  password,
  passwordFile,
}: Pick<RegisterOptions, "password" | "passwordFile">): Promise<string | undefined> {
  if (password !== undefined && passwordFile !== undefined) {
    throw new CliError(EXIT.usage, "give --password or --password-file, not both");
  }
  if (passwordFile === undefined) return password;
  const ask = passwordFile === "-" && process.stdin.isTTY === true;
  const text = ask ? await askPassword() : await readInput(passwordFile, "--password-file");
  const line = text.split(/\r?\n/, 1)[0] ?? "";
  if (line === "") throw new CliError(EXIT.usage, "the password is empty");
  return line;
}

/** Asks at the terminal without showing what is typed. */
function askPassword(): Promise<string> {
  process.stderr.write("Password: ");
  const hidden = new Writable({ write: (_chunk, _encoding, done) => done() });
  const terminal = createInterface({ input: process.stdin, output: hidden, terminal: true });
  return new Promise((resolve, reject) => {
    let line: string | undefined;
    terminal.once("line", (text) => {
      line = text;
      terminal.close();
    });
    // At a terminal in raw mode Ctrl-C is a key, not a signal.
    terminal.once("SIGINT", () => terminal.close());
    terminal.once("close", () => {
      process.stderr.write("\n");
      if (line === undefined) reject(new CliError(EXIT.interrupted, "no password was given"));
      else resolve(line);
    });
  });
}
