import { UserError } from "./errors.ts";

/** Words of an operator's own about a tenant, as Kubernetes has them: what plan it has, who pays, where it belongs. */
export type Labels = Readonly<Record<string, string>>;

export const MOST_LABELS = 32;

const NAME = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const PREFIX = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$/;
const KEY_RULE =
  '1 to 63 of A-Z, a-z, 0-9 and "-_.", beginning and ending with a letter or digit, after a domain name and "/" if there is one';
const VALUE_RULE = 'at most 63 of A-Z, a-z, 0-9 and "-_.", beginning and ending with a letter or digit, or empty';

export function labelKeyProblem(key: string): string | undefined {
  const slash = key.indexOf("/");
  const prefix = slash === -1 ? undefined : key.slice(0, slash);
  const isPrefix = prefix === undefined || (prefix.length <= 253 && PREFIX.test(prefix));
  return isPrefix && NAME.test(key.slice(slash + 1))
    ? undefined
    : `"${key.slice(0, 100)}" is no key of a label: ${KEY_RULE}`;
}

export function labelValueProblem(value: string): string | undefined {
  return value === "" || NAME.test(value)
    ? undefined
    : `"${value.slice(0, 100)}" is no value of a label: ${VALUE_RULE}`;
}

/** @returns what is wrong with labels, in a sentence */
export function labelsProblem(labels: Labels): string | undefined {
  const entries = Object.entries(labels);
  if (entries.length > MOST_LABELS) return `${entries.length} labels are too many: at most ${MOST_LABELS}`;
  for (const [key, value] of entries) {
    const problem = labelKeyProblem(key) ?? labelValueProblem(value);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** One condition of a selector. */
interface Requirement {
  key: string;
  /** Whether the label has this value; undefined: whether it is there at all. */
  value?: string;
  negated: boolean;
}

export type Selector = readonly Requirement[];

/** Longest text of a selector. */
export const LONGEST_SELECTOR = 1000;

/**
 * Reads `plan=small,region!=eu,trial,!internal`: all of it has to hold. A label that is absent is unlike any value, as in Kubernetes.
 * @throws UserError InvalidInput that names the part that is wrong
 */
export function parseSelector(text: string): Selector {
  if (text.length > LONGEST_SELECTOR)
    throw new UserError("InvalidInput", `a selector has at most ${LONGEST_SELECTOR} characters`);
  return text.split(",").map((given) => {
    const part = given.trim();
    const [, not = "", key = "", operator, value] = /^(!?)([^!=]*)(?:(!=|==?)(.*))?$/.exec(part) ?? [];
    const problem =
      part === "" || (not !== "" && operator !== undefined)
        ? "parts are KEY=VALUE, KEY!=VALUE, KEY or !KEY, with commas between them"
        : (labelKeyProblem(key.trim()) ?? labelValueProblem((value ?? "").trim()));
    if (problem !== undefined)
      throw new UserError("InvalidInput", `selector, part "${part.slice(0, 100)}": ${problem}`);
    const found = { key: key.trim(), negated: not !== "" || operator === "!=" };
    return operator === undefined ? found : { ...found, value: (value ?? "").trim() };
  });
}

export function matches(selector: Selector, labels: Labels = {}): boolean {
  return selector.every(({ key, value, negated }) => {
    const has = Object.hasOwn(labels, key) && (value === undefined || labels[key] === value);
    return has !== negated;
  });
}

/** Labels with some of them changed; null removes one. */
export function changedLabels(labels: Labels | undefined, changes: Readonly<Record<string, string | null>>): Labels {
  const next = { ...labels };
  for (const [key, value] of Object.entries(changes)) {
    if (value === null) delete next[key];
    else next[key] = value;
  }
  return next;
}
