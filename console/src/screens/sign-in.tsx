import { useState } from "react";
import { useSignIn } from "../api/session.ts";
import { Failure } from "../ui/states.tsx";

export function SignIn() {
  const signIn = useSignIn();
  const [token, setToken] = useState("");
  return (
    <main className="sign-in">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          signIn.mutate(token);
        }}
      >
        <div className="brand">
          <img src="/icon.svg" alt="" />
          <h1>synapse-shards</h1>
        </div>
        <label>
          Token
          <input
            type="password"
            name="token"
            autoComplete="current-password"
            autoFocus
            required
            value={token}
            onChange={({ target }) => setToken(target.value)}
          />
          <span className="hint">
            The owner’s is in the file <code>api-token</code> of the data directory; for others,{" "}
            <code>synapse-shards token create NAME --role viewer</code> prints one.
          </span>
        </label>
        {signIn.error && <Failure error={signIn.error} />}
        <button className="primary" disabled={signIn.isPending}>
          Sign in
        </button>
      </form>
    </main>
  );
}
