import { randomBytes, scrypt, timingSafeEqual, type ScryptOptions } from "node:crypto";
import { promisify } from "node:util";
import { UserError } from "../../../model/errors.ts";

const derive = promisify<string, Buffer, number, ScryptOptions, Buffer>(scrypt);

/** 32 MiB and a third of a second of one core: one of the strengths that OWASP names. */
const COST = { N: 2 ** 15, r: 8, p: 3 };
const MAX_MEMORY = 64 * 1024 * 1024;
const SALT_BYTES = 16;
const KEY_BYTES = 32;
/** Each takes memory and a thread: more at once is an attack, and would hold up everything else. */
const MOST_AT_ONCE = 4;

let underWay = 0;

/** @returns a text with all that is needed to check a password later */
export async function hashOf(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  const key = await derived(password, salt, COST);
  return ["scrypt", COST.N, COST.r, COST.p, salt.toString("base64url"), key.toString("base64url")].join(":");
}

/** @param hash undefined: there is none, which takes as long */
export async function isPassword(password: string, hash: string | undefined): Promise<boolean> {
  const [, n, r, p, salt = "", key = ""] = (hash ?? "").split(":");
  const cost = hash === undefined ? COST : { N: Number(n), r: Number(r), p: Number(p) };
  const found = await derived(password, Buffer.from(salt, "base64url"), cost);
  const expected = Buffer.from(key, "base64url");
  return hash !== undefined && expected.length === found.length && timingSafeEqual(expected, found);
}

async function derived(password: string, salt: Buffer, cost: typeof COST): Promise<Buffer> {
  if (underWay >= MOST_AT_ONCE) throw new UserError("RateLimited", "too many people sign in at once: try again");
  underWay += 1;
  try {
    return await derive(password.normalize("NFKC"), salt, KEY_BYTES, { ...cost, maxmem: MAX_MEMORY });
  } finally {
    underWay -= 1;
  }
}
