import { execFile } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import type { AcmeOptions } from "./acme-authority.ts";

const run = promisify(execFile);
/** Providers take their time. */
const HOOK_MS = 120_000;
const VISIBLE_MS = 300_000;
const LOOK_EVERY_MS = 2_000;
/** Secondary servers of the zone hear of it a moment after the one that was asked. */
const SETTLE_MS = 1_000;

export interface DnsHookOptions {
  program: string;
  environment: NodeJS.ProcessEnv;
  /** TXT records of a name, as the world finds them. */
  txt(name: string): Promise<string[]>;
}

/** Publishes records by a program of the operator's: `PROGRAM add|remove NAME VALUE`. */
export function dnsHook({ program, environment, txt }: DnsHookOptions): NonNullable<AcmeOptions["dns"]> {
  const call = async (verb: "add" | "remove", name: string, value: string): Promise<void> => {
    try {
      await run(program, [verb, name, value], { env: environment, timeout: HOOK_MS, maxBuffer: 64 * 1024 });
    } catch (error) {
      const { stderr, message } = error as Error & { stderr?: string };
      const said = stderr?.trim().split("\n").at(-1);
      throw new Error(`certificates.acme.dnsHook ${verb} ${name}: ${said || message}`, { cause: error });
    }
  };
  return {
    add: async (name, value) => {
      await call("add", name, value);
      const deadline = Date.now() + VISIBLE_MS;
      while (!(await txt(name).catch((): string[] => [])).includes(value)) {
        if (Date.now() > deadline)
          throw new Error(`the TXT record of ${name} is not to be found after ${VISIBLE_MS / 1000} s`);
        await sleep(LOOK_EVERY_MS);
      }
      await sleep(SETTLE_MS);
    },
    // What is left over does no harm.
    remove: (name, value) => call("remove", name, value).catch(() => {}),
  };
}
