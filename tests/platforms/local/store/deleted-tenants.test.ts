import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LocalStore } from "../../../../src/platforms/local/store/local-store.ts";
import { describeDeletedTenantsContract } from "../../../ports/deleted-tenants-contract.ts";

describeDeletedTenantsContract("The store of one machine", async () => {
  const directory = mkdtempSync(join(tmpdir(), "deleted-"));
  const file = join(directory, "store.db");
  const stores = [new LocalStore(file)];
  return {
    deleted: stores[0]!.deleted,
    reopened: async () => {
      stores.push(new LocalStore(file));
      return { deleted: stores.at(-1)!.deleted };
    },
    close: async () => {
      for (const store of stores) await store.close();
      rmSync(directory, { recursive: true });
    },
  };
});
