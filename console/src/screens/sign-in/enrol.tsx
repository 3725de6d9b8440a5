import { useEffect, useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { beginEnrolment, enrolPasskey, enrolPassword, type Enrolment } from "../../api/accounts.ts";
import { useEntry } from "../../api/session.ts";
import { CodeField } from "./code-field.tsx";
import { Failure, Waiting } from "../../ui/states.tsx";

/** Where the link of a new account leads to: its person chooses how they sign in. */
export function Enrol() {
  const [secret] = useState(() => window.location.hash.slice(1));
  const enrolment = useQuery({
    queryKey: ["enrolment", secret],
    queryFn: () => beginEnrolment(secret),
    retry: false,
    staleTime: Infinity,
  });
  // It is in nobody's history after that.
  useEffect(() => window.history.replaceState(null, "", "/enrol"), []);
  return (
    <main className="sign-in">
      <div className="sign-in-panel">
        <div className="brand">
          <img src="/icon.svg" alt="" />
          <h1>Welcome to synapse-shards</h1>
        </div>
        {enrolment.data ? (
          <Ways secret={secret} enrolment={enrolment.data} />
        ) : (
          <Waiting query={enrolment} what="your account" />
        )}
      </div>
    </main>
  );
}

function Ways({ secret, enrolment }: { secret: string; enrolment: Enrolment }) {
  const navigate = useNavigate();
  const done = () => void navigate({ to: "/overview", replace: true });
  const passkey = useEntry(() => enrolPasskey(secret, enrolment));
  const password = useEntry(enrolPassword);
  const [typed, setTyped] = useState({ password: "", code: "" });
  return (
    <>
      <p>
        You are <strong>{enrolment.name}</strong>, with the role {enrolment.role}. Choose how you sign in.
      </p>
      <button type="button" className="primary" onClick={() => passkey.mutate(undefined, { onSuccess: done })}>
        Use a passkey
      </button>
      {passkey.error && <Failure error={passkey.error} />}
      <details>
        <summary>Use a password and an app for codes</summary>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            password.mutate({ secret, flow: enrolment.flow, ...typed }, { onSuccess: done });
          }}
        >
          <p>
            Add this key to the app, by hand or by <a href={enrolment.totp.uri}>this link</a>:{" "}
            <code className="break">{enrolment.totp.secret}</code>
          </p>
          <input type="hidden" autoComplete="username" value={enrolment.name} readOnly />
          <label>
            Password
            <input
              type="password"
              autoComplete="new-password"
              minLength={12}
              required
              value={typed.password}
              onChange={({ target }) => setTyped({ ...typed, password: target.value })}
            />
            <span className="hint">At least 12 characters.</span>
          </label>
          <CodeField value={typed.code} onChange={(code) => setTyped({ ...typed, code })} />
          {password.error && <Failure error={password.error} />}
          <button disabled={password.isPending}>Use these</button>
        </form>
      </details>
    </>
  );
}
