import { describe, expect, it } from "vitest";
import { blameFor, judged, Postponement } from "../../src/controller/blame.ts";
import { StartFailure, UserError } from "../../src/model/errors.ts";
import { DatabaseTrouble } from "../../src/ports/databases.ts";
import { PreparerError } from "../../src/ports/preparers.ts";
import { ShardRefusal } from "../../src/ports/shard-control.ts";
import { ConflictError } from "../../src/ports/store.ts";

describe("who caused an error", () => {
  it.each([
    ["a configuration that a shard refuses", new ShardRefusal(422, "InvalidConfig", "no")],
    ["a release that breaks when it starts the tenant", new ShardRefusal(422, "StartFailed", "no")],
    ["a schema that the release cannot migrate", new PreparerError("StartFailed", "no")],
    ["a release that cannot be hosted", new PreparerError("UnsupportedRelease", "no")],
    ["keys that are not there", new StartFailure("SecretMissing", "no")],
    ["a host of another tenant", new StartFailure("HostTaken", "no")],
    ["a login that its database refuses", new StartFailure("DatabaseAuthenticationFailed", "no")],
  ])("blames the tenant or its release for %s", (_, error) => {
    expect(blameFor(error, false)).toBe("tenant");
    expect(judged(error, false)).toBeInstanceOf(StartFailure);
  });

  it.each([
    ["a store that does not answer", new UserError("Unavailable", "no")],
    ["a store that refuses the controller", new UserError("Unauthorized", "no")],
    ["a database server that is slow", new UserError("Timeout", "no")],
    ["a full disk", new UserError("Environment", "no")],
    ["the cluster's database, as a shard sees it", new ShardRefusal(422, "DatabaseUnreachable", "no")],
    ["the cluster's database, as the controller sees it", new StartFailure("DatabaseUnreachable", "no")],
    ["a full disk of the database server, as a shard sees it", new ShardRefusal(422, "DatabaseFull", "no")],
    ["a full disk of the database server, as the controller sees it", new DatabaseTrouble("DatabaseFull", "no")],
    ["a database server without a place, as a preparer sees it", new PreparerError("DatabaseOverloaded", "no")],
    ["a database that takes no writes", new ShardRefusal(422, "DatabaseReadOnly", "no")],
    ["a shard that is shutting down", new ShardRefusal(503, "ShuttingDown", "no")],
    ["a shard that has no preparer to spare", new ShardRefusal(429, "TooManyPreparers", "no")],
    ["a preparer that was killed", new PreparerError("PreparerEnded", "no")],
    ["an epoch that was overtaken", new ShardRefusal(409, "Fenced", "no")],
    ["a shard that is broken", new ShardRefusal(500, "Whatever", "no")],
  ])("blames the infrastructure for %s", (_, error) => {
    expect(blameFor(error, false)).toBe("infrastructure");
    expect(judged(error, false)).toBeInstanceOf(Postponement);
  });

  it("blames the tenant for a database of its own that does not answer", () => {
    expect(blameFor(new ShardRefusal(422, "DatabaseUnreachable", "no"), true)).toBe("tenant");
  });

  it("blames a tenant's own database for being away, and nobody for its full disk: the reason says which", () => {
    for (const reason of ["DatabaseFull", "DatabaseOverloaded", "DatabaseReadOnly"] as const)
      for (const error of [new ShardRefusal(422, reason, "no"), new DatabaseTrouble(reason, "no")])
        expect(judged(error, true)).toMatchObject({ name: "Postponement", reason });
  });

  it("blames nobody for a bug or for a write that was overtaken: these are retried as they are", () => {
    for (const error of [new TypeError("x is not a function"), new ConflictError("Tenant", "a")]) {
      expect(blameFor(error, true)).toBe("infrastructure");
      expect(judged(error, true)).toBe(error);
    }
  });
});
