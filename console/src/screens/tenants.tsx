import { useDeferredValue, useEffect, useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { TENANT_PHASES } from "../../../src/model/tenant.ts";
import { statusQuery, tenantsQuery, type TenantsSearch } from "../api/queries.ts";
import { useMay } from "../api/session.ts";
import { phaseName } from "../ui/badge.tsx";
import { Command, quoted } from "../ui/command.tsx";
import { counted } from "../ui/format.ts";
import { Page } from "../ui/page.tsx";
import { Failure } from "../ui/states.tsx";
import { BulkBar } from "./tenants/bulk.tsx";
import { SavedViews } from "./tenants/saved-views.tsx";
import { TenantTable } from "./tenants/table.tsx";

export function Tenants() {
  const search = useSearch({ from: "/tenants" });
  const navigate = useNavigate({ from: "/tenants" });
  const change = (changed: Partial<TenantsSearch>) =>
    void navigate({ search: (before) => without({ ...before, ...changed }), replace: true });
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const first = useQuery(tenantsQuery(search, 0));
  const status = useQuery(statusQuery);
  const mayChange = useMay("operator");
  const releases = status.data?.imageTags.map(({ version }) => version) ?? [];
  const asked = Object.keys(without(search));
  const isNarrowed = asked.some((key) => key !== "sort" && key !== "order");
  return (
    <Page title="Tenants" lead="One row for each homeserver. The address of this page keeps what you look for.">
      <SavedViews
        search={search}
        isWorthIt={asked.length > 0}
        apply={(view) => void navigate({ search: without(view) })}
      />
      <div className="row filters">
        <Words
          value={search.search ?? ""}
          onChange={(words) => change({ search: words })}
          label="Name or server name"
        />
        <select
          aria-label="Phase"
          value={search.phase ?? ""}
          onChange={({ target }) => change({ phase: target.value })}
        >
          <option value="">Any phase</option>
          {Object.keys(TENANT_PHASES).map((phase) => (
            <option key={phase} value={phase}>
              {phaseName(phase)}
            </option>
          ))}
        </select>
        <select
          aria-label="Release"
          value={search.release ?? ""}
          onChange={({ target }) => change({ release: target.value })}
        >
          <option value="">Any release</option>
          {releases.map((release) => (
            <option key={release}>{release}</option>
          ))}
        </select>
        <Words
          value={search.selector ?? ""}
          onChange={(selector) => change({ selector })}
          label="Labels: plan=small,!trial"
        />
        {search.shard !== undefined && (
          <button type="button" className="small" onClick={() => change({ shard: "" })}>
            On shard {search.shard} ✕<span className="visually-hidden"> any shard</span>
          </button>
        )}
        <span className="muted" role="status">
          {first.data ? counted(first.data.total, "tenant") : ""}
        </span>
      </div>
      {first.error && <Failure error={first.error} retry={() => void first.refetch()} />}
      {chosen.size > 0 && <BulkBar names={[...chosen]} clear={() => setChosen(new Set())} />}
      {first.data && (
        <TenantTable
          search={search}
          total={first.data.total}
          isNarrowed={isNarrowed}
          onSort={(sort, order) => change({ sort, order })}
          chosen={mayChange ? chosen : undefined}
          onChoose={setChosen}
        />
      )}
      <Command text={`synapse-shards tenant list${search.selector ? ` --selector ${quoted(search.selector)}` : ""}`} />
    </Page>
  );
}

/** Asks as one types, and not for each letter. */
function Words({ value, onChange, label }: { value: string; onChange: (words: string) => void; label: string }) {
  const [text, setText] = useState(value);
  const [known, setKnown] = useState(value);
  const [said, setSaid] = useState(value);
  const late = useDeferredValue(text);
  // Changed by somebody else, such as a view; what comes back of one's own words must not undo what was typed since.
  if (value !== known) {
    setKnown(value);
    if (value !== said) setText(value);
  }
  useEffect(() => {
    if (late === value) return;
    const timer = setTimeout(() => {
      setSaid(late);
      onChange(late);
    }, 150);
    return () => clearTimeout(timer);
  });
  return (
    <input
      type="search"
      aria-label={label}
      placeholder={label}
      value={text}
      onChange={({ target }) => setText(target.value)}
    />
  );
}

/** What is empty is not asked for. */
function without(search: TenantsSearch): TenantsSearch {
  return Object.fromEntries(Object.entries(search).filter(([, value]) => value !== undefined && value !== ""));
}
