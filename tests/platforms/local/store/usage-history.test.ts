import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LocalStore } from "../../../../src/platforms/local/store/local-store.ts";
import { describeUsageHistoryContract } from "../../../ports/usage-history-contract.ts";

describeUsageHistoryContract("The store of one machine", async () => {
  const directory = mkdtempSync(join(tmpdir(), "usage-"));
  const opened: LocalStore[] = [];
  const open = () => {
    const store = new LocalStore(join(directory, "store.db"));
    opened.push(store);
    return store.usage;
  };
  return {
    history: open(),
    reopened: async () => open(),
    close: async () => {
      for (const store of opened) await store.close();
      rmSync(directory, { recursive: true });
    },
  };
});
