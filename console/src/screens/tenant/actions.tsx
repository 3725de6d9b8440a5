import { useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { api, dataOf, type Tenant } from "../../api/client.ts";
import { shardsQuery } from "../../api/queries.ts";
import { useIsTenantAdmin, useMay } from "../../api/session.ts";
import { ActionDialog, type Action } from "../../ui/action.tsx";

type Kind =
  | "move"
  | "rename"
  | "upgrade"
  | "sleep"
  | "wake"
  | "keep-awake"
  | "let-sleep"
  | "suspend"
  | "resume"
  | "back-up"
  | "lift"
  | "delete";

const TITLES: Record<Kind, string> = {
  move: "Move",
  rename: "Rename",
  upgrade: "Release",
  "keep-awake": "Keep awake",
  "let-sleep": "Let sleep",
  sleep: "Sleep",
  wake: "Wake",
  suspend: "Suspend",
  resume: "Resume",
  "back-up": "Back up",
  lift: "Lift quarantine",
  delete: "Delete",
};

/** What does not decide where a tenant runs, nor whether it may. */
const FOR_TENANT_ADMINS: ReadonlySet<Kind> = new Set(["sleep", "wake", "back-up"]);

/** What a person with the role may do with a tenant as it is now. */
export function TenantActions({ tenant }: { tenant: Tenant }) {
  const [open, setOpen] = useState<Kind>();
  const mayOperate = useMay("operator");
  const mayDelete = useMay("admin");
  const isTenantAdmin = useIsTenantAdmin();
  if (!mayOperate && !isTenantAdmin)
    return <span className="muted small">Your role sees tenants, and changes nothing.</span>;
  const { phase, quarantine } = tenant.status;
  const all: Kind[] = [
    ...(phase === "Running" ? (["move", "sleep"] as const) : []),
    ...(phase === "Asleep" ? (["wake"] as const) : []),
    "upgrade",
    "rename",
    tenant.spec.hibernation?.mode === "Never" ? "let-sleep" : "keep-awake",
    phase === "Suspended" || tenant.spec.suspended ? "resume" : "suspend",
    "back-up",
    ...(quarantine ? (["lift"] as const) : []),
    ...(mayDelete ? (["delete"] as const) : []),
  ];
  const kinds = isTenantAdmin ? all.filter((kind) => FOR_TENANT_ADMINS.has(kind)) : all;
  return (
    <>
      {kinds.map((kind) => (
        <button key={kind} type="button" className={kind === "delete" ? "danger" : ""} onClick={() => setOpen(kind)}>
          {TITLES[kind]} …
        </button>
      ))}
      {open === "move" && <MoveDialog tenant={tenant} close={() => setOpen(undefined)} />}
      {open === "upgrade" && <ReleaseDialog tenant={tenant} close={() => setOpen(undefined)} />}
      {open === "rename" && <RenameDialog tenant={tenant} close={() => setOpen(undefined)} />}
      {open !== undefined && open !== "move" && open !== "upgrade" && open !== "rename" && (
        <SimpleDialog kind={open} tenant={tenant} close={() => setOpen(undefined)} />
      )}
    </>
  );
}

const PINS: Record<string, { words: string; option: string }> = {
  "0": { words: "not at all", option: "none" },
  "3600": { words: "for an hour", option: "1h" },
  "86400": { words: "for a day", option: "1d" },
  "2592000": { words: "for 30 days", option: "30d" },
};

function MoveDialog({ tenant, close }: { tenant: Tenant; close: () => void }) {
  const { name } = tenant.metadata;
  const [to, setTo] = useState("");
  const [pin, setPin] = useState("3600");
  const shards = useQuery(shardsQuery);
  const others = (shards.data?.items ?? []).filter(
    ({ metadata, status }) => metadata.name !== tenant.status.shard && status.phase === "Ready",
  );
  const action: Action = {
    title: `Move ${name}`,
    verb: "Move",
    command: `synapse-shards tenant move ${name}${to === "" ? "" : ` --to ${to}`}${pin === "3600" ? "" : ` --pin ${PINS[pin]?.option}`}`,
    done: `${name} is being moved`,
    act: () =>
      dataOf(
        api.POST("/v1/tenants/{name}/move", {
          params: { path: { name } },
          body: { ...(to === "" ? {} : { to }), pinSeconds: Number(pin) },
        }),
      ),
    children: (
      <>
        <p>
          It is stopped on {tenant.status.shard} and started on another shard. Requests wait for about a second; clients
          stay connected.
        </p>
        <label>
          To
          <select value={to} onChange={({ target }) => setTo(target.value)}>
            <option value="">The best other shard</option>
            {others.map(({ metadata, tenants, capacity }) => (
              <option key={metadata.name} value={metadata.name}>
                {metadata.name} ({tenants.length} of {capacity} places)
              </option>
            ))}
          </select>
        </label>
        <label>
          Consolidation leaves it there
          <select value={pin} onChange={({ target }) => setPin(target.value)}>
            {Object.entries(PINS).map(([seconds, { words }]) => (
              <option key={seconds} value={seconds}>
                {words}
              </option>
            ))}
          </select>
        </label>
      </>
    ),
  };
  return <ActionDialog action={action} close={close} />;
}

function ReleaseDialog({ tenant, close }: { tenant: Tenant; close: () => void }) {
  const { name } = tenant.metadata;
  const [release, setRelease] = useState(tenant.spec.release || "fleet");
  const wanted = release.trim();
  const action: Action = {
    title: `Release of ${name}`,
    verb: "Ask for it",
    command: `synapse-shards tenant update ${name} --release ${wanted || "VERSION"}`,
    done: `${name} is being brought to ${wanted === "fleet" ? "the fleet’s release" : `Synapse ${wanted}`}`,
    act: () => dataOf(api.PATCH("/v1/tenants/{name}", { params: { path: { name } }, body: { release: wanted } })),
    children: (
      <>
        <p>
          It is moved to a shard of this release, and its database is brought along. A newer release’s database may not
          be readable by an older one. “fleet” follows the fleet.
        </p>
        <label>
          Release of Synapse
          <input value={release} required onChange={({ target }) => setRelease(target.value)} />
        </label>
      </>
    ),
  };
  return <ActionDialog action={action} close={close} />;
}

function RenameDialog({ tenant, close }: { tenant: Tenant; close: () => void }) {
  const navigate = useNavigate();
  const { name } = tenant.metadata;
  const [to, setTo] = useState("");
  const wanted = to.trim();
  const action: Action = {
    title: `Rename ${name}`,
    verb: "Rename",
    command: `synapse-shards tenant rename ${name} ${wanted || "NEW-NAME"}`,
    done: `${name} is being renamed to ${wanted}`,
    act: async () => {
      await dataOf(api.POST("/v1/tenants/{name}/rename", { params: { path: { name } }, body: { to: wanted } }));
      await navigate({ to: "/tenants" });
    },
    children: (
      <>
        <p>
          Its server name {tenant.spec.serverName}, users and data stay as they are. Requests wait for some seconds. On
          Kubernetes a tenant’s name cannot be changed.
        </p>
        <label>
          New name
          <input value={to} required maxLength={63} onChange={({ target }) => setTo(target.value)} />
        </label>
      </>
    ),
  };
  return <ActionDialog action={action} close={close} />;
}

type SimpleKind = Exclude<Kind, "move" | "rename" | "upgrade">;

function SimpleDialog({ kind, tenant, close }: { kind: SimpleKind; tenant: Tenant; close: () => void }) {
  const navigate = useNavigate();
  const { name } = tenant.metadata;
  const at = { params: { path: { name } } };
  const actions: Record<SimpleKind, Omit<Action, "title" | "verb">> = {
    sleep: {
      command: `synapse-shards tenant sleep ${name}`,
      done: `${name} falls asleep`,
      act: () => dataOf(api.POST("/v1/tenants/{name}/sleep", at)),
      children: (
        <p>
          It stops until its next request, or until something is due. If it owes anything to anybody, it stays awake and
          says what.
        </p>
      ),
    },
    wake: {
      command: `synapse-shards tenant wake ${name}`,
      done: `${name} wakes`,
      act: () => dataOf(api.POST("/v1/tenants/{name}/wake", at)),
      children: <p>It is placed on a shard and started.</p>,
    },
    "keep-awake": {
      command: `synapse-shards tenant update ${name} --hibernation never`,
      done: `${name} stays awake from now on`,
      act: () => dataOf(api.PATCH("/v1/tenants/{name}", { ...at, body: { hibernation: { mode: "Never" } } })),
      children: <p>It holds its place on a shard also when nobody uses it, until this is taken back.</p>,
    },
    "let-sleep": {
      command: `synapse-shards tenant update ${name} --hibernation auto`,
      done: `${name} sleeps again when nobody uses it`,
      act: () => dataOf(api.PATCH("/v1/tenants/{name}", { ...at, body: { hibernation: { mode: "Auto" } } })),
      children: <p>It falls asleep when nobody has used it for a while, as the others do.</p>,
    },
    suspend: {
      command: `synapse-shards tenant suspend ${name}`,
      done: `${name} is being suspended`,
      isDangerous: true,
      act: () => dataOf(api.POST("/v1/tenants/{name}/suspend", at)),
      children: <p>It runs nowhere until it is resumed, and its users’ requests are refused. Data and keys stay.</p>,
    },
    resume: {
      command: `synapse-shards tenant resume ${name}`,
      done: `${name} is being resumed`,
      act: () => dataOf(api.POST("/v1/tenants/{name}/resume", at)),
      children: <p>It is placed on a shard and started again.</p>,
    },
    "back-up": {
      command: `synapse-shards tenant backup ${name}`,
      done: `${name} is being backed up`,
      act: () => dataOf(api.POST("/v1/tenants/{name}/backups", at)),
      children: <p>Its database, media and keys are copied to the place of the cluster’s backups. It keeps running.</p>,
    },
    lift: {
      command: `synapse-shards tenant quarantine ${name} --lift`,
      done: `${name} may share a shard again`,
      act: () => dataOf(api.DELETE("/v1/tenants/{name}/quarantine", at)),
      children: <p>It may share a shard with others again. What held its shard up before may do so again.</p>,
    },
    delete: {
      command: `synapse-shards tenant delete ${name}`,
      done: `${name} is being deleted`,
      isDangerous: true,
      typed: name,
      act: async () => {
        await dataOf(api.DELETE("/v1/tenants/{name}", at));
        await navigate({ to: "/tenants" });
      },
      children: (
        <p>
          {tenant.spec.serverName} stops, and its users can no longer reach it. Its database, media and keys are kept
          for the time that the cluster’s settings say: until then <code>synapse-shards tenant undelete {name}</code>{" "}
          has it back.
        </p>
      ),
    },
  };
  const action: Action = { title: `${TITLES[kind]}: ${name}`, verb: TITLES[kind], ...actions[kind] };
  return <ActionDialog action={action} close={close} />;
}
