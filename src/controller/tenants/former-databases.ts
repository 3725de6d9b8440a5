import { storageOf } from "../../model/storage-name.ts";
import { messageOf } from "../../model/errors.ts";
import type { FormerDatabase } from "../../model/tenant.ts";
import { modify } from "../../ports/store.ts";
import { recordEvent, type ControllerContext } from "../context.ts";

/** Removes databases that moves have left on their former servers. @param isOver whether the time of one is over */
export async function removeFormer(
  context: ControllerContext,
  isOver: (tenant: string, former: FormerDatabase) => boolean,
): Promise<void> {
  const { reader, databaseMoves, store, log } = context;
  if (!databaseMoves) return;
  for (const { metadata, status } of reader.values("Tenant"))
    for (const former of status.formerDatabases ?? []) {
      const { name } = metadata;
      const { server, keptUntil } = former;
      // One that is on its way may be needed again.
      if (status.databaseMove || !isOver(name, former)) continue;
      try {
        await databaseMoves.forget(storageOf({ metadata, status }), server);
        await modify(store, "Tenant", name, (tenant) => {
          const left = (tenant.status.formerDatabases ?? []).filter(
            (one) => one.server !== server || one.keptUntil !== keptUntil,
          );
          tenant.status.formerDatabases = left;
          if (left.length === 0) delete tenant.status.formerDatabases;
        });
        const message = `the database that ${name} had on ${server} until it was moved was removed: its time is over`;
        await recordEvent(context, { type: "Normal", reason: "Purged", object: `Tenant/${name}`, message });
      } catch (error) {
        log.warn(
          { tenant: name, server, why: messageOf(error) },
          "a former database cannot be removed; tried again later",
        );
      }
    }
}
