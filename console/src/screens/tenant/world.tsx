import { useMutation } from "@tanstack/react-query";
import { api, dataOf, sentence, type Schemas, type Tenant } from "../../api/client.ts";
import { useMayTend } from "../../api/session.ts";
import { Badge, type Tone } from "../../ui/badge.tsx";
import { Command } from "../../ui/command.tsx";
import { Card } from "../../ui/page.tsx";
import { Empty, Failure } from "../../ui/states.tsx";
import { Time } from "../../ui/time.tsx";

type Report = Schemas["TenantCheck"];

const TONES: Record<Report["result"], Tone> = { ok: "good", info: "rest", warning: "warn", error: "bad" };
const NAMES: Record<Report["result"], string> = {
  ok: "Well",
  info: "For information",
  warning: "Warning",
  error: "Error",
};
const ORDER: readonly Report["result"][] = ["error", "warning", "info", "ok"];

/** The tenant as the world sees it: it is looked at when somebody asks, which takes seconds. */
export function World({ tenant }: { tenant: Tenant }) {
  const { name } = tenant.metadata;
  const mayCheck = useMayTend();
  const check = useMutation({
    mutationFn: () => dataOf(api.GET("/v1/tenants/{name}/check", { params: { path: { name } } })),
  });
  if (!mayCheck) return <Empty title="Checks are for operators">They make the controller ask around.</Empty>;
  const { data } = check;
  return (
    <div className="stack">
      <div className="row">
        <button type="button" className="primary" disabled={check.isPending} onClick={() => check.mutate()}>
          {check.isPending ? "Looking …" : data ? "Look again" : "Look now"}
        </button>
        <span className="muted" role="status">
          {check.isPending
            ? "DNS, delegation, certificates, client API, federation and keys are looked at; this takes some seconds."
            : "Clients and other servers find it by DNS, delegation and certificates."}
        </span>
      </div>
      {check.error && <Failure error={check.error} />}
      {data && <Findings report={data} />}
      <Command text={`synapse-shards tenant check ${name}`} />
    </div>
  );
}

function Findings({ report: { findings, result, checkedAt } }: { report: Report }) {
  const sorted = findings.toSorted((a, b) => ORDER.indexOf(a.severity) - ORDER.indexOf(b.severity));
  return (
    <Card
      title="What was found"
      flush
      aside={
        <span className="row">
          <Badge tone={TONES[result]}>{NAMES[result]}</Badge>
          <Time at={checkedAt} />
        </span>
      }
    >
      <ul className="problems">
        {sorted.map(({ code, severity, subject, message, remedy }) => (
          <li key={`${code} ${subject}`}>
            <Badge tone={TONES[severity]}>{NAMES[severity]}</Badge>
            <div>
              <p className="what">
                <code>{subject}</code> {sentence(message)}
              </p>
              {remedy && <p className="do">{sentence(remedy)}</p>}
            </div>
          </li>
        ))}
      </ul>
    </Card>
  );
}
