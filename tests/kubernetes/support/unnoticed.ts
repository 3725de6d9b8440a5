import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import type { TestUser } from "../../e2e/support/matrix.ts";
import { until } from "../../support/patience.ts";
import { Chatter } from "./chatter.ts";
import type { Installation } from "./installation.ts";

/** Who is connected to the tenant's database with its role, besides the controller and those that wait; each pod has an address of its own. */
const owners = (tenant: string) => `SELECT string_agg(DISTINCT host(client_addr), ' ') FROM pg_stat_activity
  WHERE datname = current_database() AND usename = '${tenant}' AND application_name NOT LIKE 'synapse-shards%'`;

/** Looks at a database all the time. */
class OwnerWatch {
  readonly #cluster: Installation;
  readonly #tenant: string;
  readonly seen = new Set<string>();
  readonly doubles: string[] = [];
  #isOn = true;
  readonly #loop: Promise<void>;

  constructor(cluster: Installation, tenant: string) {
    this.#cluster = cluster;
    this.#tenant = tenant;
    this.#loop = this.#watch();
  }

  async #watch(): Promise<void> {
    while (this.#isOn) {
      const found = (await this.#cluster.sql(owners(this.#tenant), this.#tenant)).trim();
      if (found !== "") this.seen.add(found);
      if (found.includes(" ")) this.doubles.push(found);
      await sleep(50);
    }
  }

  async end(): Promise<void> {
    this.#isOn = false;
    await this.#loop;
  }
}

/** Does something while clients, both `user`'s, are at it, and expects that nobody noticed and no two had the database. */
export async function unnoticedBy(
  user: TestUser,
  cluster: Installation,
  tenant: string,
  what: () => Promise<unknown>,
): Promise<OwnerWatch> {
  const name = user.client.getUserId()!.slice(1).split(":")[0]!;
  const chatter = await Chatter.begin(user, await cluster.logIn(tenant, name));
  const watch = new OwnerWatch(cluster, tenant);
  try {
    await until("a few messages are sent", async () => chatter.count > 5);
    await what();
    const count = chatter.count;
    await until("it goes on", async () => chatter.count > count + 5);
  } finally {
    await watch.end();
    const { sent, kept, failures } = await chatter.end();
    expect(failures).toEqual([]);
    expect(kept).toEqual(sent);
    expect(watch.doubles).toEqual([]);
  }
  return watch;
}
