import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { BackupService } from "../../src/controller/service/backup-service.ts";
import { newFleetStatus, DEFAULT_ROLLOUT } from "../../src/model/fleet.ts";
import { API_TOKEN, startApiUnderTest, type ApiUnderTest } from "../api/api-under-test.ts";
import { browserProgram, openView, signIn, useBrowser, type View } from "./support/browser.ts";

const job = (tenant: string) => ({
  id: "job-1",
  kind: "Backup",
  tenant,
  state: "Running",
  message: "",
  requestedAt: "2026-11-26T03:00:00Z",
});

describe.skipIf(browserProgram() === undefined)(
  "what a person does in the console, each after a look at the command",
  () => {
    const browser = useBrowser();
    const backedUp: string[] = [];
    let api: ApiUnderTest;
    let view: View;
    beforeEach(async () => {
      backedUp.length = 0;
      const backups = {
        jobs: () => [],
        list: async () => [],
        newest: async () => [],
        backUp: async (tenant: string) => {
          backedUp.push(tenant);
          return job(tenant);
        },
      } as unknown as BackupService;
      api = await startApiUnderTest(undefined, { parts: { backups } });
      api.service.addShard("1.163.2-0");
      api.service.run(api.service.addTenant("clinic-a"), "1.163.2-0");
      view = await openView(browser(), api.url);
    });
    afterEach(async () => {
      await view.close();
      await api.close();
    });

    /** @param fill by its label, what a dialog asks for */
    async function act(verb: string, command: string, fill: Record<string, string> = {}): Promise<void> {
      const { page } = view;
      const dialog = page.getByRole("dialog");
      await page.getByRole("button", { name: new RegExp(`^${verb} …`) }).click();
      for (const [label, value] of Object.entries(fill)) await dialog.getByLabel(label).fill(value);
      await dialog.getByText(`synapse-shards ${command}`, { exact: true }).waitFor();
      await dialog.getByRole("button", { name: verb, exact: true }).click();
      // Another one may follow, with what came of it.
      await dialog.filter({ hasText: `synapse-shards ${command}` }).waitFor({ state: "detached" });
    }

    test("a tenant is backed up, put to sleep and woken, suspended and resumed, let out of its quarantine, and renamed", async () => {
      const { tenants } = api.service;
      const status = () => tenants.get("clinic-a")!.status;
      status().quarantine = { since: "2026-11-26T03:00:00Z", message: "it held its shard up" };
      await signIn(view, API_TOKEN, "/tenants/clinic-a");
      await act("Back up", "tenant backup clinic-a");
      expect(backedUp).toEqual(["clinic-a"]);
      await act("Lift quarantine", "tenant quarantine clinic-a --lift");
      expect(status().quarantine).toBeUndefined();
      await act("Sleep", "tenant sleep clinic-a");
      expect(status().phase).toBe("Asleep");
      await act("Wake", "tenant wake clinic-a");
      expect(status().phase).toBe("Running");
      await act("Suspend", "tenant suspend clinic-a");
      expect(status().phase).toBe("Suspended");
      await act("Resume", "tenant resume clinic-a");
      expect(status().phase).toBe("Running");
      await act("Rename", "tenant rename clinic-a clinic-z", { "New name": "clinic-z" });
      await view.page.getByRole("link", { name: "clinic-z" }).waitFor();
      expect([...tenants.keys()]).toEqual(["clinic-z"]);
    });

    test("a token is revoked, and an account gets another link, or is removed", async () => {
      api.namedTokens.create("ci", "operator");
      api.accounts.create("ada", { role: "viewer" });
      const { page } = view;
      await signIn(view, API_TOKEN, "/settings");
      await act("Revoke", "token revoke ci");
      await expect.poll(() => api.namedTokens.list().map(({ name }) => name)).toEqual([]);
      await act("Reset", "account reset ada");
      const shown = page.getByRole("dialog", { name: "The link of ada" });
      expect(await shown.getByRole("code").innerText()).toContain(new URL(api.url).port);
      await shown.getByRole("button", { name: "Done" }).click();
      await act("Remove", "account remove ada");
      await expect.poll(() => api.accounts.list().map(({ name }) => name)).toEqual([]);
    });

    test("a release that was rolled out is rolled back", async () => {
      const status = { ...newFleetStatus(), release: "1.164.0", previousRelease: "1.163.2" };
      await api.store.create("Fleet", "fleet", { release: "1.164.0", rollout: DEFAULT_ROLLOUT }, status);
      await signIn(view, API_TOKEN, "/rollouts");
      await act("Roll back", "fleet rollback", { "Type 1.163.2 to confirm": "1.163.2" });
      expect((await api.store.get("Fleet", "fleet"))!.spec.release).toBe("1.163.2");
    });
  },
);
