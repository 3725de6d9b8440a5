import { useEffect, useRef, useState, type ReactNode } from "react";
import { useQuery } from "@tanstack/react-query";
import { Link, Outlet, useRouterState } from "@tanstack/react-router";
import { problemsQuery, statusQuery } from "../api/queries.ts";
import { useLive } from "../api/live.ts";
import { useSession, useSignOut, type Person } from "../api/session.ts";
import { Enrol } from "../screens/sign-in/enrol.tsx";
import { SignIn } from "../screens/sign-in.tsx";
import { count } from "./format.ts";
import { Failure } from "./states.tsx";
import { Toasts } from "./toasts.tsx";
import { applyTheme, currentTheme, THEMES, type Theme } from "./theme.ts";

/** Nobody but who is signed in sees anything but the way in. */
export function Frame() {
  const session = useSession();
  const isEnrolling = useRouterState({ select: ({ location }) => location.pathname === "/enrol" });
  if (isEnrolling) return <Enrol />;
  if (session.data) return <SignedIn person={session.data} />;
  if (session.data === null) return <SignIn />;
  if (!session.error) return null;
  return (
    <main className="sign-in">
      <Failure error={session.error} retry={() => void session.refetch()} />
    </main>
  );
}

const SCREENS = [
  { to: "/overview", name: "Overview" },
  { to: "/tenants", name: "Tenants" },
  { to: "/shards", name: "Shards" },
  { to: "/rollouts", name: "Rollouts" },
  { to: "/events", name: "Events" },
  { to: "/audit", name: "Audit" },
  { to: "/settings", name: "Settings" },
] as const;

/** What is not about one tenant or another. */
const FOR_THE_CLUSTER: ReadonlySet<string> = new Set(["/shards", "/rollouts", "/settings"]);

function screensOf({ role }: Person) {
  return SCREENS.filter(({ to }) => role !== "tenant-admin" || !FOR_THE_CLUSTER.has(to));
}

function SignedIn({ person }: { person: Person }) {
  const main = useFocusOnNavigation();
  return (
    <div className="frame">
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <div className="side">
        <Link to="/overview" className="brand">
          <img src="/icon.svg" alt="" />
          synapse-shards
        </Link>
        <nav className="nav" aria-label="Screens">
          {screensOf(person).map(({ to, name }) => (
            <Link key={to} to={to} activeProps={{ "aria-current": "page" }}>
              {name}
              {to === "/overview" && <ProblemCount />}
            </Link>
          ))}
        </nav>
        <Foot person={person} />
      </div>
      <main id="main" tabIndex={-1} ref={main}>
        <Outlet />
      </main>
      <Toasts />
    </div>
  );
}

function ProblemCount() {
  const { data } = useQuery(problemsQuery);
  if (!data?.total) return null;
  return (
    <span className="count" title={`${data.total} problems`}>
      {count(data.total)}
      <span className="visually-hidden"> problems</span>
    </span>
  );
}

function Foot({ person }: { person: Person }) {
  const signOut = useSignOut();
  const live = useLive();
  const { error } = useQuery(statusQuery);
  const state = error ? "lost" : live;
  return (
    <div className="side-foot">
      <div className="link" role="status" data-state={state}>
        <i aria-hidden="true" />
        {STATE_NAMES[state]}
      </div>
      <ThemeChoice />
      <div className="person">
        <div>
          <strong>{person.name}</strong>
          <span className="muted" title={person.tenants}>
            {person.role}
          </span>
        </div>
        <button type="button" className="small" onClick={() => signOut.mutate()}>
          Sign out
        </button>
      </div>
    </div>
  );
}

const STATE_NAMES = { live: "Live", waiting: "Connecting …", lost: "No answer from the controller" };

const THEME_NAMES: Record<Theme, string> = { system: "As the system", light: "Light", dark: "Dark" };

function ThemeChoice(): ReactNode {
  const [theme, setTheme] = useState(currentTheme);
  return (
    <label className="theme">
      <span className="hint">Appearance</span>
      <select
        value={theme}
        onChange={({ target }) => {
          const chosen = THEMES.find((known) => known === target.value) ?? "system";
          setTheme(chosen);
          applyTheme(chosen);
        }}
      >
        {THEMES.map((known) => (
          <option key={known} value={known}>
            {THEME_NAMES[known]}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A new page begins at its top, also for those who hear it. */
function useFocusOnNavigation() {
  const main = useRef<HTMLElement>(null);
  const path = useRouterState({ select: ({ location }) => location.pathname });
  const last = useRef(path);
  useEffect(() => {
    if (last.current === path) return;
    last.current = path;
    window.scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [path]);
  return main;
}
