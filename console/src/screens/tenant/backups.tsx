import { useQuery } from "@tanstack/react-query";
import { api, dataOf, type Tenant } from "../../api/client.ts";
import { Badge } from "../../ui/badge.tsx";
import { Command } from "../../ui/command.tsx";
import { bytes } from "../../ui/format.ts";
import { Card } from "../../ui/page.tsx";
import { Empty, Waiting } from "../../ui/states.tsx";
import { Time } from "../../ui/time.tsx";

export function Backups({ tenant }: { tenant: Tenant }) {
  const { name } = tenant.metadata;
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
          <div className="scroll" tabIndex={0} role="group" aria-label="Backups">
            <table>
              <thead>
                <tr>
                  <th>Id</th>
                  <th>Taken</th>
                  <th>Release</th>
                  <th className="number">Database</th>
                  <th>Verified</th>
                </tr>
              </thead>
              <tbody>
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
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Card>
      <p className="muted">A restore puts a backup in the tenant’s place, and can be undone:</p>
      <Command text={`synapse-shards tenant restore ${name} --backup ${items[0]?.backup.id ?? "ID"}`} />
    </div>
  );
}
