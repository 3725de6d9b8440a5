import { useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { api, dataOf } from "../api/client.ts";
import { useSignIn } from "../api/session.ts";
import { WithAccount } from "./sign-in/with-account.tsx";
import { Failure } from "../ui/states.tsx";

/** What the way back from an identity provider may say; docs/access.md. */
const REFUSALS: Record<string, string> = {
  away: "The identity provider does not answer as it should. Try again in a moment. The controller’s log says why.",
  expired: "Signing in took too long, or began in another browser. Try again.",
  refused: "The identity provider did not let you in.",
  failed: "Signing in failed. The controller’s log says why.",
  "no-role": "You are known to the identity provider, but none of your groups has a role here. Ask an administrator.",
};

export function SignIn() {
  const methods = useQuery({
    queryKey: ["sign-in-methods"],
    queryFn: ({ signal }) => dataOf(api.GET("/v1/session/methods", { signal })),
  });
  const oidc = methods.data?.oidc;
  const refusal = REFUSALS[new URLSearchParams(window.location.search).get("sign-in") ?? ""];
  return (
    <main className="sign-in">
      <div className="sign-in-panel">
        <div className="brand">
          <img src="/icon.svg" alt="" />
          <h1>synapse-shards</h1>
        </div>
        {refusal !== undefined && (
          <div className="notice" data-tone="bad" role="alert">
            {refusal}
          </div>
        )}
        {oidc && (
          <a className="button primary" href={`/v1/session/oidc?returnTo=${encodeURIComponent(here())}`}>
            {oidc.label}
          </a>
        )}
        {methods.data?.accounts && <WithAccount />}
        <WithToken isMain={!oidc && !methods.data?.accounts} />
      </div>
    </main>
  );
}

function WithToken({ isMain }: { isMain: boolean }) {
  const signIn = useSignIn();
  const [token, setToken] = useState("");
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        signIn.mutate(token);
      }}
    >
      <label>
        Token
        <input
          type="password"
          name="token"
          autoComplete="current-password"
          autoFocus={isMain}
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
      <button className={isMain ? "primary" : ""} disabled={signIn.isPending}>
        Sign in
      </button>
    </form>
  );
}

/** Where the person was, to be there again. */
function here(): string {
  const { pathname, search } = window.location;
  return pathname === "/" || search.includes("sign-in=") ? "/overview" : pathname + search;
}
