import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  chooseServer,
  DatabaseServersSchema,
  fullServersWords,
  type ServerLoad,
} from "../../src/model/database-servers.ts";

const shares = fc.array(
  fc.record({
    weight: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 20 })),
    maxDatabases: fc.option(fc.integer({ min: 1, max: 60 }), { nil: undefined }),
    databases: fc.nat(40),
  }),
  { minLength: 1, maxLength: 6 },
);
const named = (found: Omit<ServerLoad, "name">[]): ServerLoad[] =>
  found.map((share, index) => ({ ...share, name: `db-${index}` }));

/** Places as many as asked for, one after the other. */
function placed(servers: ServerLoad[], count: number): (string | undefined)[] {
  return Array.from({ length: count }, () => {
    const name = chooseServer(servers);
    const server = servers.find((one) => one.name === name);
    if (server) server.databases += 1;
    return name;
  });
}

test("never gives a server more than its most, nor one of weight 0 any, and gives each database a place while there is one", () => {
  fc.assert(
    fc.property(shares, fc.nat(200), (found, count) => {
      const servers = named(found);
      const before = structuredClone(servers);
      const answers = placed(servers, count);
      for (const [index, { weight, maxDatabases, databases }] of servers.entries()) {
        const had = before[index]!.databases;
        expect(databases).toBeLessThanOrEqual(Math.max(had, maxDatabases ?? Number.POSITIVE_INFINITY));
        expect(weight === 0 ? databases : had).toBe(had);
      }
      const places = before
        .filter(({ weight }) => weight > 0)
        .reduce((sum, s) => sum + Math.max(0, (s.maxDatabases ?? Number.POSITIVE_INFINITY) - s.databases), 0);
      expect(answers.filter((name) => name !== undefined)).toHaveLength(Math.min(count, places));
    }),
  );
});

test("shares new databases in proportion to the weights, to within one", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 6 }),
      fc.nat(300),
      (weights, n) => {
        const servers = named(weights.map((weight) => ({ weight, databases: 0 })));
        placed(servers, n);
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        // Of many servers one can be ahead of its part by less than one, and behind it by what the others are ahead.
        for (const { weight, databases } of servers)
          expect(Math.abs(databases - (n * weight) / total)).toBeLessThan(servers.length);
      },
    ),
  );
});

test("spreads 100,000 databases over 60 servers of two sizes as docs/scale.md says, and then says that they are full", () => {
  const servers = named(
    Array.from({ length: 60 }, (_, n) => {
      const large = n < 20;
      return { weight: large ? 2 : 1, maxDatabases: large ? 2_500 : 1_250, databases: 0 };
    }),
  );
  expect(placed(servers, 100_000).every((name) => name !== undefined)).toBe(true);
  expect(servers.map(({ databases }) => databases)).toEqual([
    ...Array.from({ length: 20 }, () => 2_500),
    ...Array.from({ length: 40 }, () => 1_250),
  ]);
  expect(chooseServer(servers)).toBeUndefined();
});

test("decides by what it is given alone, whatever the order of servers of different loads", () => {
  fc.assert(
    fc.property(shares, (found) => {
      const servers = named(found);
      const first = chooseServer(servers);
      expect(chooseServer(servers)).toBe(first);
      const shareOf = (name: string | undefined) => {
        const server = servers.find((one) => one.name === name);
        return server && (server.databases + 1) / server.weight;
      };
      expect(shareOf(chooseServer(servers.toReversed()))).toBe(shareOf(first));
    }),
  );
});

test("says of each server why it takes none", () => {
  const servers = [
    { name: "main", weight: 1, maxDatabases: 2, databases: 2 },
    { name: "old", weight: 0, databases: 7 },
  ];
  expect(chooseServer(servers)).toBeUndefined();
  expect(fullServersWords(servers)).toBe(
    "no database server has a place for another database: main has 2 of 2, old takes none (weight 0); raise maxDatabases, or add a server to databaseServers",
  );
});

test("a configuration is refused that names a server twice, leaves out where it is, or lets none take databases", () => {
  const other = { name: "db-2", host: "db-2.internal", passwordFile: "/etc/db-2" };
  expect(DatabaseServersSchema.parse([{ name: "main", weight: 0 }, other])).toMatchObject([
    { name: "main", weight: 0 },
    { port: 5432, user: "postgres", sslMode: "prefer", weight: 1 },
  ]);
  // The cluster's own takes them, where nothing is said of it.
  expect(DatabaseServersSchema.safeParse([{ ...other, weight: 0 }]).success).toBe(true);
  for (const wrong of [
    [other, other],
    [{ name: "main", host: "elsewhere" }],
    [{ name: "db-2", passwordFile: "/x" }],
    [{ name: "db-2", host: "db-2" }],
    [{ name: "DB", host: "db", passwordFile: "/x" }],
    [
      { ...other, weight: 0 },
      { name: "main", weight: 0 },
    ],
    [{ ...other, host: "a,b" }],
    [{ ...other, maxDatabases: 0 }],
  ])
    expect(DatabaseServersSchema.safeParse(wrong).success, JSON.stringify(wrong)).toBe(false);
});
