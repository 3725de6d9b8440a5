import { Option, type Command } from "commander";
import type { Client } from "./client.ts";
import { confirm } from "./confirm.ts";
import { forEach } from "./each.ts";
import { isForPeople, show, type Format } from "./format.ts";
import { counted, note, print } from "./output.ts";
import { namesOf, selectorOption } from "./selecting.ts";

export interface ChoiceOptions {
  selector?: string;
  yes?: boolean;
}

/** The tenants that a command is about. */
export interface Choice {
  names: readonly string[];
  /** One that was named: what is printed is about it, and no list. */
  isSingle: boolean;
}

/** The argument and options by which every command for several tenants is told which. */
export function takesTenants(command: Command): Command {
  return command
    .argument("[name...]", "names of the tenants")
    .addOption(selectorOption())
    .addOption(
      new Option("-y, --yes", "do not ask before several tenants that a selector names; needed without a terminal"),
    );
}

/**
 * Who selects may be wrong about what that is: what is chosen is shown, and asked about where it is more than one.
 * @param what is done to them, such as "move"; absent where nothing is changed, which nobody is asked about
 * @param least how many are asked about
 * @throws CliError where none is named and none selected, or both; where the answer is no
 */
export async function choose(
  client: Client,
  given: readonly string[],
  { selector, yes }: ChoiceOptions,
  what?: string,
  least = 2,
): Promise<Choice> {
  const names = [...new Set(await namesOf(client, given, selector))];
  if (selector === undefined) return { names, isSingle: given.length === 1 };
  if (names.length > 0) note(`selected: ${names.join(", ")}`);
  if (what !== undefined && names.length >= least) {
    const question = `${what[0]!.toUpperCase()}${what.slice(1)} ${counted(names.length, "tenant")}?`;
    await confirm({ question, otherwise: "nothing was done", why: "a selector may name more than is meant", yes });
  }
  return { names, isSingle: false };
}

interface Action<A, T> {
  begin(name: string): Promise<A>;
  finish(name: string, asked: A): Promise<T>;
  /** What programs are told. */
  value(done: T): unknown;
  /** What people are told, in a line. */
  words(name: string, done: T): string;
  /** How many are asked for before their end is awaited. Default: what an API takes easily. */
  atOnce?: number;
}

/** Does it to each, with a line for each; what fails for one does not keep the others from it. @throws CliError of what failed */
export async function actOn<A, T>(
  { names, isSingle }: Choice,
  output: Format,
  { begin, finish, value, words, atOnce }: Action<A, T>,
): Promise<void> {
  const done: unknown[] = [];
  const forPeople = isForPeople(output);
  await forEach(
    names,
    {
      begin,
      finish: async (name, asked) => {
        const result = await finish(name, asked);
        if (forPeople) print(words(name, result));
        else done.push(value(result));
      },
      report: () => {
        if (!forPeople && (!isSingle || done.length > 0)) show(output, isSingle ? done[0] : done, () => "");
      },
    },
    atOnce,
  );
}
