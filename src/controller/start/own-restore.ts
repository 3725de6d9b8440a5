import { messageOf, UserError } from "../../model/errors.ts";
import { storageOf } from "../../model/storage-name.ts";
import type { Tenant, TenantStatus } from "../../model/tenant.ts";
import { FORMER, type CopyFacts } from "../../ports/backups.ts";
import type { ControllerContext } from "../context.ts";
import { refuseNewerSchema, refuseUnlike } from "./copy-checks.ts";
import { withConfig, type StartConfig } from "./configs.ts";

type Asked = NonNullable<TenantStatus["restore"]>;

/**
 * Brings a backup, or what was there before the last restore, into the database that a tenant brings along, while nobody runs it. It takes as long as the
 * dump is large.
 * @param tenant with an epoch that nobody else has
 * @returns why it was not done, where nothing has changed
 */
export async function restoreOwn(
  context: ControllerContext,
  tenant: Tenant,
  config: StartConfig,
  { id, backup, storage = storageOf(tenant) }: Asked,
  release: string,
): Promise<UserError | undefined> {
  const { ownRestores } = context;
  if (!ownRestores) return new UserError("Conflict", "this platform restores no databases that tenants bring along");
  const { databases } = ownRestores;
  const here = withConfig(tenant, config);
  const restore = { id, epoch: tenant.status.epoch };
  const seconds = context.timing.ownRestoreWithin;
  const late = AbortSignal.timeout(seconds * 1_000);
  try {
    if (backup === FORMER) await databases.takeBack(here, config.secrets, restore, late);
    else {
      const { counts, dump } = await ownRestores.read(storage, backup);
      const check = (facts: CopyFacts) => {
        refuseUnlike(`backup ${backup}`, counts, facts);
        refuseNewerSchema(context, release, facts);
      };
      await databases.replace(here, config.secrets, restore, dump, check, late);
    }
    return undefined;
  } catch (error) {
    // It may have been the answer to its very last statement that was lost.
    if ((await databases.last(here, config.secrets)) === id) return undefined;
    context.log.warn({ tenant: tenant.metadata.name, backup, why: messageOf(error) }, "a restore has failed");
    if (late.aborted) return new UserError("Timeout", `it was not done in ${seconds / 3_600} hours`, { cause: error });
    return error instanceof UserError ? error : new UserError("Environment", messageOf(error), { cause: error });
  }
}
