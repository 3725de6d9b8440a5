import { useState } from "react";
import { enterWithPasskey, enterWithPassword } from "../../api/accounts.ts";
import { useEntry } from "../../api/session.ts";
import { CodeField } from "./code-field.tsx";
import { Failure } from "../../ui/states.tsx";

/** For people who have an account here. */
export function WithAccount() {
  const passkey = useEntry(enterWithPasskey);
  const password = useEntry(enterWithPassword);
  const [typed, setTyped] = useState({ name: "", password: "", code: "" });
  return (
    <>
      <button type="button" className="primary" disabled={passkey.isPending} onClick={() => passkey.mutate(undefined)}>
        Sign in with a passkey
      </button>
      {passkey.error && <Failure error={passkey.error} />}
      <details>
        <summary>Sign in with a password</summary>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            password.mutate(typed);
          }}
        >
          <label>
            Name
            <input
              autoComplete="username"
              required
              value={typed.name}
              onChange={({ target }) => setTyped({ ...typed, name: target.value })}
            />
          </label>
          <label>
            Password
            <input
              type="password"
              autoComplete="current-password"
              required
              value={typed.password}
              onChange={({ target }) => setTyped({ ...typed, password: target.value })}
            />
          </label>
          <CodeField value={typed.code} onChange={(code) => setTyped({ ...typed, code })} />
          {password.error && <Failure error={password.error} />}
          <button disabled={password.isPending}>Sign in with these</button>
        </form>
      </details>
    </>
  );
}
