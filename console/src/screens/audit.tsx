import { useQuery } from "@tanstack/react-query";
import { jsonLinesOf } from "../api/lines.ts";
import { useIsTenantAdmin, useMay } from "../api/session.ts";
import { Badge } from "../ui/badge.tsx";
import { Command } from "../ui/command.tsx";
import { Page } from "../ui/page.tsx";
import { Empty, Waiting } from "../ui/states.tsx";
import { Time } from "../ui/time.tsx";

interface Entry {
  time: string;
  actor: string | null;
  role: string | null;
  action: string;
  path: string;
  status: number;
  client: string;
  omitted?: number;
}

const SHOWN = 300;

export function Audit() {
  const isAdmin = useMay("admin");
  const isTenantAdmin = useIsTenantAdmin();
  const mayRead = isAdmin || isTenantAdmin;
  const audit = useQuery({
    queryKey: ["audit"],
    enabled: mayRead,
    queryFn: async ({ signal }) => (await jsonLinesOf<Entry>(`/v1/audit?tail=${SHOWN}`, signal)).toReversed(),
  });
  return (
    <Page title="Audit" lead="Who changed what, or tried to; newest first.">
      {!mayRead && (
        <section className="card">
          <Empty title="The audit log is for admins" />
        </section>
      )}
      {mayRead && !audit.data && <Waiting query={audit} what="the audit log" />}
      {audit.data && (
        <section className="card scroll" aria-label="Audit log" tabIndex={0}>
          {audit.data.length === 0 ? (
            <Empty title="Nobody has changed anything yet" />
          ) : (
            <table>
              <thead>
                <tr>
                  <th>Time</th>
                  <th>Who</th>
                  <th>Action</th>
                  <th>Result</th>
                  <th>Path</th>
                  <th>From</th>
                </tr>
              </thead>
              <tbody>
                {audit.data.map((entry, index) => (
                  <tr key={audit.data.length - index}>
                    <td className="time">
                      <Time at={entry.time} />
                    </td>
                    <td>
                      {entry.actor ?? "unknown"} <span className="muted">{entry.role}</span>
                    </td>
                    <td>{entry.action}</td>
                    <td>
                      <Badge tone={entry.status < 400 ? "good" : "warn"}>{String(entry.status)}</Badge>
                      {entry.omitted !== undefined && <span className="muted"> and {entry.omitted} more</span>}
                    </td>
                    <td className="mono">{entry.path}</td>
                    <td className="mono">{entry.client}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </section>
      )}
      <Command text={`synapse-shards audit --tail ${SHOWN}`} />
    </Page>
  );
}
