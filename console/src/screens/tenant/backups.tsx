import { useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { api, dataOf, type Tenant } from "../../api/client.ts";
import { useMay } from "../../api/session.ts";
import { ActionDialog, type Action } from "../../ui/action.tsx";
import { Badge } from "../../ui/badge.tsx";
import { Command } from "../../ui/command.tsx";
import { bytes } from "../../ui/format.ts";
import { Card } from "../../ui/page.tsx";
import { Empty, Waiting } from "../../ui/states.tsx";
import { Ago, Time } from "../../ui/time.tsx";
import { ScrollTable } from "../../ui/scroll-table.tsx";

export function Backups({ tenant }: { tenant: Tenant }) {
  const { name } = tenant.metadata;
  const mayRestore = useMay("admin");
  const [open, setOpen] = useState<Restore>();
  const backups = useQuery({
    queryKey: ["tenant", name, "backups"],
    queryFn: ({ signal }) => dataOf(api.GET("/v1/tenants/{name}/backups", { signal, params: { path: { name } } })),
  });
  if (!backups.data) return <Waiting query={backups} what="the backups" />;
  const { items } = backups.data;
  return (
    <div className="stack">
      <Card title="Backups" flush>
        {items.length === 0 ? (
          <Empty title="There is no backup yet">
            “Back up” makes one now; the schedule is in the cluster’s settings.
          </Empty>
        ) : (
          <ScrollTable
            label="Backups"
            columns={[
              "Id",
              "Taken",
              "Release",
              { name: "Database", className: "number" },
              "Verified",
              mayRestore && "Restore",
            ]}
          >
            {items.map(({ backup, verification }) => (
              <tr key={backup.id}>
                <td className="mono">{backup.id}</td>
                <td className="time">
                  <Time at={backup.takenAt} />
                </td>
                <td className="mono">{backup.schemaRelease}</td>
                <td className="number">{bytes(backup.database.bytes)}</td>
                <td>
                  {verification ? (
                    verification.ok ? (
                      <Time at={verification.verifiedAt} />
                    ) : (
                      <Badge tone="bad">Damaged</Badge>
                    )
                  ) : (
                    "not yet"
                  )}
                </td>
                {mayRestore && (
                  <td>
                    <button type="button" className="small danger" onClick={() => setOpen({ backup: backup.id })}>
                      Restore …<span className="visually-hidden"> ({backup.id})</span>
                    </button>
                  </td>
                )}
              </tr>
            ))}
          </ScrollTable>
        )}
      </Card>
      {mayRestore && tenant.status.restored && (
        <div className="notice">
          <p>
            It was restored to {tenant.status.restored.backup} <Ago at={tenant.status.restored.at} />. What was there
            before is kept until somebody removes it.
          </p>
          <div className="row">
            <button type="button" className="small" onClick={() => setOpen("undo")}>
              Take the restore back …
            </button>
          </div>
        </div>
      )}
      <Command text={`synapse-shards tenant backups ${name}`} />
      {open && <RestoreDialog name={name} restore={open} close={() => setOpen(undefined)} />}
    </div>
  );
}

type Restore = "undo" | { backup: string };

function RestoreDialog({ name, restore, close }: { name: string; restore: Restore; close: () => void }) {
  const at = { params: { path: { name } } };
  const action: Action =
    restore === "undo"
      ? {
          title: `Take back the restore of ${name}`,
          verb: "Take back",
          command: `synapse-shards tenant restore ${name} --undo`,
          done: `The restore of ${name} is being taken back`,
          isDangerous: true,
          typed: name,
          act: () => dataOf(api.POST("/v1/tenants/{name}/restore/undo", at)),
          children: (
            <p>The database from before the restore takes its place again; what was written since is put aside.</p>
          ),
        }
      : {
          title: `Restore ${name}`,
          verb: "Restore",
          command: `synapse-shards tenant restore ${name} --backup ${restore.backup}`,
          done: `${name} is being restored`,
          isDangerous: true,
          typed: name,
          act: () => dataOf(api.POST("/v1/tenants/{name}/restore", { ...at, body: { backup: restore.backup } })),
          children: (
            <p>
              The backup {restore.backup} takes the tenant’s place: what was written since is put aside, and can be had
              back by taking the restore back.
            </p>
          ),
        };
  return <ActionDialog action={action} close={close} />;
}
