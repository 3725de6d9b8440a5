import { readFileSync } from "node:fs";
import { messageOf, UserError } from "../../model/errors.ts";
import type { SignInConfig } from "../../model/sign-in.ts";
import { AccountSignIn, type AccountSignInOptions } from "./accounts/sign-in.ts";
import { OidcSignIn } from "./oidc.ts";
import type { Sessions } from "./sessions.ts";

/** How browsers come in. */
export interface ConsoleAccess {
  sessions: Sessions;
  /** Names besides localhost under which the console is reached. */
  hosts: readonly string[];
  /** The console's address as browsers have it, without a path. */
  url: () => string;
  oidc?: OidcSignIn;
  accounts?: AccountSignIn;
}

export interface ConsoleAccessOptions {
  signIn: SignInConfig;
  /** Names besides localhost under which the console is reached. */
  hosts: readonly string[];
  sessions: Sessions;
  /** Where the console is where the configuration does not say it. */
  ownUrl: () => string;
  /** Absent where the platform keeps no accounts. */
  accounts?: Pick<AccountSignInOptions, "accounts" | "protect">;
  log: { warn(message: string): void };
}

/** The ways in that the configuration asks for. @throws UserError InvalidConfig where it names a file that cannot be read */
export function consoleAccessOf({
  signIn,
  hosts,
  sessions,
  ownUrl,
  accounts,
  log,
}: ConsoleAccessOptions): ConsoleAccess {
  const { oidc, consoleUrl } = signIn;
  const configured = consoleUrl === undefined ? undefined : new URL(consoleUrl);
  const url = () => configured?.origin ?? ownUrl();
  return {
    sessions,
    hosts: configured ? [...hosts, configured.hostname] : hosts,
    url,
    ...(accounts ? { accounts: new AccountSignIn({ ...accounts, sessions, consoleUrl: url }) } : {}),
    ...(oidc
      ? {
          oidc: new OidcSignIn({
            config: oidc,
            secret: secretOf(oidc.clientSecretFile),
            consoleUrl: url,
            sessions,
            log,
          }),
        }
      : {}),
  };
}

function secretOf(file: string | undefined): string | undefined {
  if (file === undefined) return undefined;
  try {
    const secret = readFileSync(file, "utf8").trim();
    if (secret !== "") return secret;
    throw new Error("it is empty");
  } catch (error) {
    throw new UserError("InvalidConfig", `signIn.oidc.clientSecretFile ${file}: ${messageOf(error)}`, { cause: error });
  }
}
