import { useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { api, dataOf, type Schemas, type Tenant } from "../../api/client.ts";
import { usersQuery, USERS_A_PAGE } from "../../api/queries.ts";
import { useMayTend } from "../../api/session.ts";
import { ActionDialog, type Action } from "../../ui/action.tsx";
import { SignInDialog, useMaySignIn } from "./admin-access.tsx";
import { Badge } from "../../ui/badge.tsx";
import { Command, quoted } from "../../ui/command.tsx";
import { counted } from "../../ui/format.ts";
import { Card } from "../../ui/page.tsx";
import { Empty, Waiting } from "../../ui/states.tsx";
import { Secret } from "../../ui/secret.tsx";
import { Time } from "../../ui/time.tsx";
import { ScrollTable } from "../../ui/scroll-table.tsx";

type User = Schemas["User"];
type Kind = "password" | "deactivate" | "admin";
type Opened = Kind | "sign-in";

/** A tenant's accounts: found, and what operators do with them daily. */
export function Users({ tenant }: { tenant: Tenant }) {
  const { name } = tenant.metadata;
  const mayRead = useMayTend();
  const [search, setSearch] = useState("");
  const [page, setPage] = useState(0);
  const [open, setOpen] = useState<{ kind: Opened; user: User }>();
  const maySignIn = useMaySignIn(name);
  const close = () => setOpen(undefined);
  const users = useQuery({ ...usersQuery(name, search, page), enabled: mayRead });
  if (!mayRead) return <Empty title="Users are for operators" />;
  const { data } = users;
  return (
    <div className="stack">
      <Card
        title="Users"
        flush
        aside={
          <input
            type="search"
            aria-label="User id or display name"
            placeholder="User id or display name"
            value={search}
            onChange={({ target }) => {
              setSearch(target.value);
              setPage(0);
            }}
          />
        }
      >
        {!data && <Waiting query={users} what="the users" />}
        {data?.items.length === 0 && <Empty title={search === "" ? "There are no users yet" : "No user matches"} />}
        {data && data.items.length > 0 && (
          <ScrollTable label="Users" columns={["User", "Name", "State", "Created", "Last seen", "Actions"]}>
            {data.items.map((user) => (
              <Row key={user.userId} user={user} maySignIn={maySignIn} open={(kind) => setOpen({ kind, user })} />
            ))}
          </ScrollTable>
        )}
      </Card>
      {data && data.total > USERS_A_PAGE && (
        <div className="row">
          <button type="button" disabled={page === 0} onClick={() => setPage(page - 1)}>
            Previous
          </button>
          <span className="muted">
            {counted(data.total, "user")}, page {page + 1} of {Math.ceil(data.total / USERS_A_PAGE)}
          </span>
          <button type="button" disabled={(page + 1) * USERS_A_PAGE >= data.total} onClick={() => setPage(page + 1)}>
            Next
          </button>
        </div>
      )}
      <Command text={`synapse-shards tenant users list ${name}${search === "" ? "" : ` --search ${quoted(search)}`}`} />
      {open?.kind === "sign-in" && <SignInDialog tenant={tenant} userId={open.user.userId} close={close} />}
      {open && open.kind !== "sign-in" && (
        <ChangeDialog tenant={tenant} user={open.user} kind={open.kind} close={close} />
      )}
    </div>
  );
}

interface RowProps {
  user: User;
  /** As one that is an administrator. */
  maySignIn: boolean;
  open: (kind: Opened) => void;
}

function Row({ user, maySignIn, open }: RowProps) {
  const { userId, displayName, admin, deactivated, locked, appservice, createdAt, lastSeen } = user;
  const whose = <span className="visually-hidden"> ({userId})</span>;
  return (
    <tr>
      <td className="mono">{userId}</td>
      <td>{displayName}</td>
      <td>
        <span className="row">
          {deactivated && <Badge tone="rest">Deactivated</Badge>}
          {locked && <Badge tone="warn">Locked</Badge>}
          {admin && <Badge tone="busy">Admin</Badge>}
          {appservice && <Badge tone="rest">Application service</Badge>}
          {!deactivated && !locked && !admin && !appservice && "active"}
        </span>
      </td>
      <td className="time">{createdAt ? <Time at={createdAt} /> : "–"}</td>
      <td className="time">{lastSeen ?? "–"}</td>
      <td>
        {!deactivated && (
          <span className="row">
            {admin && !locked && maySignIn && (
              <button type="button" className="small" onClick={() => open("sign-in")}>
                Sign in as …{whose}
              </button>
            )}
            <button type="button" className="small" onClick={() => open("password")}>
              Reset password …{whose}
            </button>
            <button type="button" className="small" onClick={() => open("admin")}>
              {admin ? "No longer admin …" : "Make admin …"}
              {whose}
            </button>
            <button type="button" className="small danger" onClick={() => open("deactivate")}>
              Deactivate …{whose}
            </button>
          </span>
        )}
      </td>
    </tr>
  );
}

interface ChangeProps {
  tenant: Tenant;
  user: User;
  kind: Kind;
  close: () => void;
}

function ChangeDialog({ tenant, user, kind, close }: ChangeProps) {
  const { name } = tenant.metadata;
  const { userId, admin } = user;
  const [password] = useState(newPassword);
  const [erase, setErase] = useState(false);
  const at = { params: { path: { name, user: userId } } };
  const command = `synapse-shards tenant users`;
  const wakes = tenant.status.phase === "Asleep" && <p>The tenant sleeps, and is woken for it.</p>;
  const actions: Record<Kind, Action> = {
    password: {
      title: `Reset the password of ${userId}`,
      verb: "Reset",
      command: `${command} reset-password ${name} ${userId}`,
      done: `${userId} has another password`,
      act: () =>
        dataOf(
          api.POST("/v1/tenants/{name}/users/{user}/reset-password", {
            ...at,
            body: { password, logoutDevices: true },
          }),
        ),
      children: (
        <>
          <p>All of the user’s sessions end. This is the new password, which is shown nowhere again:</p>
          <Secret text={password} what="password" />
          {wakes}
        </>
      ),
    },
    admin: {
      title: admin ? `Take the rights of an admin from ${userId}` : `Make ${userId} an admin`,
      verb: admin ? "Take" : "Make admin",
      command: `${command} make-admin ${name} ${userId}${admin ? " --revoke" : ""}`,
      done: admin ? `${userId} is no admin any more` : `${userId} is an admin`,
      act: () => dataOf(api.POST("/v1/tenants/{name}/users/{user}/make-admin", { ...at, body: { admin: !admin } })),
      children: (
        <>
          <p>
            An admin can see and change everything of this homeserver through Synapse’s admin API, where that is let in.
          </p>
          {wakes}
        </>
      ),
    },
    deactivate: {
      title: `Deactivate ${userId}`,
      verb: "Deactivate",
      command: `${command} deactivate ${name} ${userId}${erase ? " --erase" : ""}`,
      done: `${userId} is deactivated`,
      isDangerous: true,
      typed: userId,
      act: () => dataOf(api.POST("/v1/tenants/{name}/users/{user}/deactivate", { ...at, body: { erase } })),
      children: (
        <>
          <p>
            The user is signed out and leaves all rooms. The account cannot be used again, and nobody can have its name.
          </p>
          <label className="inline">
            <input type="checkbox" checked={erase} onChange={({ target }) => setErase(target.checked)} />
            Hide what the user wrote from those who join later
          </label>
          {wakes}
        </>
      ),
    },
  };
  return <ActionDialog action={actions[kind]} close={close} />;
}

/** 120 bits, of letters that are told apart. */
function newPassword(): string {
  const letters = "abcdefghijkmnpqrstuvwxyz23456789";
  return [...crypto.getRandomValues(new Uint8Array(24))].map((byte) => letters[byte % letters.length]).join("");
}
