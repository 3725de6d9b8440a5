import { expect, it } from "vitest";
import { StoreInspectionService } from "../../../src/controller/backups/store-inspection-service.ts";
import type { StoreBackupService } from "../../../src/controller/backups/store-backup-service.ts";
import type { ControllerContext } from "../../../src/controller/context.ts";
import { SteadyClock } from "../../../src/model/clock.ts";
import { UserError } from "../../../src/model/errors.ts";
import type { Inspections } from "../../../src/ports/inspections.ts";
import { FakeTime } from "../../support/fake-clock.ts";

it("removes what was interrupted, and what is over, as soon as the database server answers again", async () => {
  const time = new FakeTime();
  let isAway = true;
  const calls: string[] = [];
  const answer = <T>(call: string, result: T) => {
    if (isAway) throw new UserError("Unavailable", "PostgreSQL is away");
    calls.push(call);
    return result;
  };
  const until = new Date(time.wall() - 1).toISOString();
  const inspections = {
    clean: async () => answer("clean", undefined),
    list: async () => answer("list", [{ tenant: "a", database: "inspected_tenant_a", of: "b", madeAt: until, until }]),
    remove: async (tenant: string) => answer(`remove ${tenant}`, undefined),
  } as unknown as Inspections;
  const log = { warn: () => {}, info: () => {} };
  const context = { clock: new SteadyClock(time), log } as unknown as ControllerContext;
  const service = new StoreInspectionService(context, {} as StoreBackupService, inspections);
  await service.start();
  expect(calls).toEqual([]);
  isAway = false;
  time.pass(600_000);
  await expect.poll(() => calls).toEqual(["clean", "list", "remove a"]);
  await service.close();
});
