import { verifyAuthenticationResponse, type AuthenticationResponseJSON } from "@simplewebauthn/server";
import { expect, test, vi } from "vitest";
import type { Account, Accounts } from "../../src/api/access/accounts/accounts.ts";
import { AccountSignIn } from "../../src/api/access/accounts/sign-in.ts";
import { Sessions } from "../../src/api/access/sessions.ts";
import { startApiUnderTest } from "./api-under-test.ts";

vi.mock(import("@simplewebauthn/server"), async (original) => ({
  ...(await original()),
  verifyAuthenticationResponse: vi.fn<typeof verifyAuthenticationResponse>(),
}));

test("a reset while a passkey is verified leaves the account without it, and nobody signed in", async () => {
  const api = await startApiUnderTest();
  try {
    const accounts: Accounts = api.accounts;
    const { secret } = accounts.create("ada", { role: "operator" });
    const passkey = { id: "key", publicKey: "AA", counter: 0, transports: [], createdAt: "2026-11-27T12:00:00.000Z" };
    const { handle } = accounts.enrol(secret, { passkey });
    const sessions = new Sessions(
      () => ["token"],
      () => new Date(),
    );
    const signIn = new AccountSignIn({
      accounts,
      sessions,
      consoleUrl: () => api.url,
      protect: { seal: String, open: String },
    });
    const finish = async (meanwhile: () => void): Promise<Account> => {
      vi.mocked(verifyAuthenticationResponse).mockImplementationOnce(async () => {
        meanwhile();
        return { verified: true, authenticationInfo: { newCounter: 1 } } as never;
      });
      const { flow } = await signIn.beginPasskey();
      return signIn.finishPasskey(flow, { id: "key", response: { userHandle: handle } } as AuthenticationResponseJSON);
    };
    expect(await finish(() => {})).toMatchObject({ name: "ada", passkey: { counter: 1 } });
    await expect(finish(() => void accounts.reset("ada"))).rejects.toThrow("this passkey is of no account here");
    expect(accounts.find("ada")).not.toHaveProperty("passkey");
  } finally {
    await api.close();
  }
});
