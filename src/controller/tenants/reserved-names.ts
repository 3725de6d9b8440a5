import { UserError } from "../../model/errors.ts";
import { hostOf } from "../../model/names.ts";

/** What belongs to one tenant alone. */
export interface TenantNames {
  name: string;
  serverName: string;
  /** What its data are named by. */
  storage: string;
}

/**
 * Names of tenants that long work is to make: from before the first of their data is there until there is the tenant, nobody else gets them. In memory,
 * as such work is: they end with the controller, and what work left is found by its marks when it is asked for again. Looked at and changed while
 * nobody else creates, renames, has back or purges (`Deletions.lock`).
 */
export class ReservedNames {
  /** By whom, as a sentence's subject. */
  readonly #reserved = new Map<TenantNames, string>();

  /** @throws UserError Conflict */
  add(names: TenantNames, by: string): void {
    this.refuse(names);
    this.#reserved.set(names, by);
  }

  remove(names: TenantNames): void {
    this.#reserved.delete(names);
  }

  hasStorage(storage: string): boolean {
    return [...this.#reserved.keys()].some((reserved) => reserved.storage === storage);
  }

  /** @param own the very names that were reserved for who asks @throws UserError Conflict */
  refuse(asked: Partial<TenantNames>, own?: TenantNames): void {
    for (const [reserved, by] of this.#reserved) {
      const what = reserved === own ? undefined : inBoth(reserved, asked);
      if (what !== undefined)
        throw new UserError(
          "Conflict",
          `the ${what} is reserved for ${by}; try again after it, or choose another name`,
        );
    }
  }
}

function inBoth(reserved: TenantNames, { name, serverName, storage }: Partial<TenantNames>): string | undefined {
  if (reserved.name === name) return `name ${name}`;
  if (serverName !== undefined && hostOf(reserved.serverName) === hostOf(serverName))
    return `server name ${serverName}`;
  return reserved.storage === storage ? `storage name ${storage}` : undefined;
}
