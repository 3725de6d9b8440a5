import { useState } from "react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import type { Role } from "../../../../src/model/role.ts";
import { api, ApiFailure, dataOf } from "../../api/client.ts";
import { ActionDialog, type Action } from "../../ui/action.tsx";
import { Card } from "../../ui/page.tsx";
import { Empty, Waiting } from "../../ui/states.tsx";
import { Ago } from "../../ui/time.tsx";
import { GrantCell, useGrant } from "./grant-fields.tsx";
import { SecretDialog } from "./secret-dialog.tsx";
import { ScrollTable } from "../../ui/scroll-table.tsx";

interface Link {
  name: string;
  url: string;
}

/** People who sign in here, with a passkey or a password. */
export function Accounts() {
  const accounts = useQuery({
    queryKey: ["accounts"],
    queryFn: ({ signal }) => dataOf(api.GET("/v1/accounts", { signal })),
  });
  const client = useQueryClient();
  const [open, setOpen] = useState<{ kind: "create" } | { kind: "reset" | "remove"; name: string }>();
  const [link, setLink] = useState<Link>();
  // The platform keeps none.
  if (accounts.error instanceof ApiFailure && accounts.error.status === 409) return null;
  const show = async (asked: Promise<Link>) => {
    setLink(await asked);
    await client.invalidateQueries({ queryKey: ["accounts"] });
  };
  const close = () => setOpen(undefined);
  return (
    <Card
      title="Accounts"
      flush
      aside={
        <button type="button" className="small" onClick={() => setOpen({ kind: "create" })}>
          Make an account …
        </button>
      }
    >
      {!accounts.data && <Waiting query={accounts} what="the accounts" />}
      {accounts.data?.items.length === 0 && (
        <Empty title="Nobody has an account">People with one sign in with a passkey, or a password and codes.</Empty>
      )}
      {accounts.data && accounts.data.items.length > 0 && (
        <ScrollTable
          label="Accounts"
          columns={["Name", "Role", "Signs in with", "Last sign-in", { name: "Actions", hidden: true }]}
        >
          {accounts.data.items.map(({ name, role, tenants, signsInWith, lastSignInAt }) => (
            <tr key={name}>
              <td>{name}</td>
              <GrantCell role={role} tenants={tenants} />
              <td>{signsInWith ?? "link not used yet"}</td>
              <td className="time">{lastSignInAt === undefined ? "never" : <Ago at={lastSignInAt} />}</td>
              <td>
                <button type="button" className="small" onClick={() => setOpen({ kind: "reset", name })}>
                  Reset …<span className="visually-hidden"> {name}</span>
                </button>{" "}
                <button type="button" className="small" onClick={() => setOpen({ kind: "remove", name })}>
                  Remove …<span className="visually-hidden"> {name}</span>
                </button>
              </td>
            </tr>
          ))}
        </ScrollTable>
      )}
      {open?.kind === "create" && (
        <CreateDialog close={close} create={(body) => show(dataOf(api.POST("/v1/accounts", { body })))} />
      )}
      {open && open.kind !== "create" && (
        <ActionDialog close={close} action={open.kind === "reset" ? resetOf(open.name, show) : removalOf(open.name)} />
      )}
      {link && (
        <SecretDialog title={`The link of ${link.name}`} secret={link.url} close={() => setLink(undefined)}>
          <p>Give it to {link.name}. Whoever opens it first is that person; the link works once, within 24 hours.</p>
        </SecretDialog>
      )}
    </Card>
  );
}

function resetOf(name: string, show: (asked: Promise<Link>) => Promise<void>): Action {
  return {
    title: `Reset ${name}`,
    children: <p>The passkey or password counts no more, sessions end, and a new link is made.</p>,
    command: `synapse-shards account reset ${name}`,
    verb: "Reset",
    isDangerous: true,
    done: `The account ${name} is reset.`,
    act: () => show(dataOf(api.POST("/v1/accounts/{name}/reset", { params: { path: { name } } }))),
  };
}

function removalOf(name: string): Action {
  return {
    title: `Remove ${name}`,
    children: <p>{name} cannot sign in any more, and sessions end.</p>,
    command: `synapse-shards account remove ${name}`,
    verb: "Remove",
    isDangerous: true,
    done: `The account ${name} is removed.`,
    act: () => dataOf(api.DELETE("/v1/accounts/{name}", { params: { path: { name } } })),
  };
}

function CreateDialog({
  close,
  create,
}: {
  close: () => void;
  create: (body: { name: string; role: Role; tenants?: string }) => Promise<void>;
}) {
  const { body, words, fields } = useGrant();
  return (
    <ActionDialog
      close={close}
      action={{
        title: "Make an account",
        children: fields,
        command: `synapse-shards account create ${words}`,
        verb: "Make",
        done: `The account ${body.name} is made.`,
        act: () => create(body),
      }}
    />
  );
}
