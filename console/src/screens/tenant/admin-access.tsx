import { useState } from "react";
import { useMutation, useQuery } from "@tanstack/react-query";
import { api, dataOf, type Schemas, type Tenant } from "../../api/client.ts";
import { adminAccessQuery } from "../../api/queries.ts";
import { useIsTenantAdmin, useMay } from "../../api/session.ts";
import { ActionDialog, Dialog, type Action } from "../../ui/action.tsx";
import { Command } from "../../ui/command.tsx";
import { Card } from "../../ui/page.tsx";
import { Secret } from "../../ui/secret.tsx";
import { Failure } from "../../ui/states.tsx";
import { Time } from "../../ui/time.tsx";

type Access = Schemas["AdminAccess"];

/** Whether the person may open and close a tenant to its administrators, and sign in as one of them. */
function useMayChange(access: Access | undefined): boolean {
  const mayOperate = useMay("operator");
  const isTenantAdmin = useIsTenantAdmin();
  return mayOperate || (isTenantAdmin && access?.tenantAdmins === true);
}

/** Whether there is somewhere to sign in to, for this person. */
export function useMaySignIn(name: string): boolean {
  const { data } = useQuery(adminAccessQuery(name));
  return useMayChange(data) && data?.open === true;
}

/** The entrance for a tenant's own administrators; nothing where the cluster has none. */
export function AdminAccess({ name }: { name: string }) {
  const { data } = useQuery(adminAccessQuery(name));
  const mayChange = useMayChange(data);
  const [dialog, setDialog] = useState<"open" | "close">();
  if (data?.address === undefined) return null;
  const { open, allowedNetworks, address, ui } = data;
  return (
    <Card title="Its administrators">
      <div className="stack">
        <dl className="facts">
          <dt>Entrance</dt>
          <dd>{open ? "open" : "closed"}</dd>
          {open && (
            <>
              <dt>From</dt>
              <dd>{allowedNetworks.join(", ") || "any network that the cluster allows"}</dd>
              <dt>Homeserver</dt>
              <dd className="mono">{address}</dd>
              <dt>Admin UI</dt>
              <dd>{ui === undefined ? "none is configured" : <UiLink ui={ui} />}</dd>
            </>
          )}
        </dl>
        {mayChange && (
          <div className="row">
            <button type="button" className="small" onClick={() => setDialog("open")}>
              {open ? "Change …" : "Open …"}
            </button>
            {open && (
              <button type="button" className="small" onClick={() => setDialog("close")}>
                Close …
              </button>
            )}
          </div>
        )}
      </div>
      {dialog === "open" && <OpenDialog name={name} access={data} close={() => setDialog(undefined)} />}
      {dialog === "close" && <CloseDialog name={name} close={() => setDialog(undefined)} />}
    </Card>
  );
}

function UiLink({ ui }: { ui: string }) {
  return (
    <a href={ui} target="_blank" rel="noopener noreferrer">
      {new URL(ui).host}
    </a>
  );
}

function OpenDialog({ name, access, close }: { name: string; access: Access; close: () => void }) {
  const [text, setText] = useState(access.allowedNetworks.join(" "));
  const allowedNetworks = text.split(/[\s,]+/).filter((entry) => entry !== "");
  const networks = allowedNetworks.length === 0 ? "" : ` --network ${allowedNetworks.join(" ")}`;
  const at = { params: { path: { name } } };
  const action: Action = {
    title: `Open ${name} to its administrators`,
    verb: "Open",
    command: `synapse-shards tenant admin-access open ${name}${networks}`,
    done: `${name} is open to its administrators`,
    act: () => dataOf(api.PUT("/v1/tenants/{name}/admin-access", { ...at, body: { allowedNetworks } })),
    children: (
      <>
        <p>
          With an account that is an admin, they reach Synapse’s admin API of this homeserver at {access.address},
          except for what would harm others.
        </p>
        <label>
          From these addresses and networks
          <input value={text} placeholder="any" onChange={({ target }) => setText(target.value)} />
        </label>
      </>
    ),
  };
  return <ActionDialog action={action} close={close} />;
}

function CloseDialog({ name, close }: { name: string; close: () => void }) {
  const action: Action = {
    title: `Close ${name} to its administrators`,
    verb: "Close",
    command: `synapse-shards tenant admin-access close ${name}`,
    done: `${name} is closed to its administrators`,
    act: () => dataOf(api.DELETE("/v1/tenants/{name}/admin-access", { params: { path: { name } } })),
    children: (
      <p>
        Nobody reaches its admin API from outside any more, and sessions that were opened here end. Its users go on as
        before.
      </p>
    ),
  };
  return <ActionDialog action={action} close={close} />;
}

/** Signs in as an administrator; the token is shown until the dialog is closed, and kept nowhere. */
export function SignInDialog({ tenant, userId, close }: { tenant: Tenant; userId: string; close: () => void }) {
  const { name } = tenant.metadata;
  const title = `Sign in as ${userId}`;
  const mutation = useMutation({
    gcTime: 0,
    mutationFn: () =>
      dataOf(api.POST("/v1/tenants/{name}/users/{user}/admin-session", { params: { path: { name, user: userId } } })),
  });
  const { data } = mutation;
  return (
    <Dialog title={title} close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (data) close();
          else mutation.mutate();
        }}
      >
        <h2>{title}</h2>
        <div className="stack">
          {data ? (
            <>
              <p>
                Give this access token to the admin UI. It is shown nowhere again, and good until{" "}
                <Time at={data.expiresAt} />.
              </p>
              <Secret text={data.token} what="token" />
              <dl className="facts">
                <dt>Homeserver</dt>
                <dd className="mono">{data.address}</dd>
                <dt>Admin UI</dt>
                <dd>{data.ui === undefined ? "none is configured" : <UiLink ui={data.ui} />}</dd>
              </dl>
            </>
          ) : (
            <>
              <p>
                You get an access token of this account for the admin UI, good for an hour. The audit log and the
                timeline say so; the user is not told.
              </p>
              {tenant.status.phase === "Asleep" && <p>The tenant sleeps, and is woken for it.</p>}
              <Command text={`synapse-shards tenant admin-access sign-in ${name} ${userId}`} />
            </>
          )}
        </div>
        {mutation.error && <Failure error={mutation.error} />}
        <footer>
          {!data && (
            <button type="button" onClick={close}>
              Cancel
            </button>
          )}
          <button className="primary" disabled={mutation.isPending}>
            {data ? "Done" : "Sign in"}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
