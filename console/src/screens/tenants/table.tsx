import { useLayoutEffect, useMemo, useRef } from "react";
import { useQueries } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useVirtualizer } from "@tanstack/react-virtual";
import type { Tenant } from "../../api/client.ts";
import { TENANTS_A_PAGE, tenantsQuery, type TenantsSearch } from "../../api/queries.ts";
import { Badge, Phase } from "../../ui/badge.tsx";
import { Empty } from "../../ui/states.tsx";
import { Ago } from "../../ui/time.tsx";

const ROW_HEIGHT = 41;

type SortKey = NonNullable<TenantsSearch["sort"]>;

const COLUMNS: { key: SortKey; name: string }[] = [
  { key: "name", name: "Name" },
  { key: "serverName", name: "Server name" },
  { key: "phase", name: "Phase" },
  { key: "shard", name: "Shard" },
  { key: "release", name: "Release" },
  { key: "created", name: "Created" },
];

interface TenantTableProps {
  search: TenantsSearch;
  total: number;
  isNarrowed: boolean;
  onSort: (sort: SortKey, order: "ascending" | "descending") => void;
  /** Absent: nobody may do anything with them. */
  chosen?: ReadonlySet<string>;
  onChoose: (chosen: ReadonlySet<string>) => void;
}

/** Of however many tenants, only the rows that are seen are there, and only their pages are asked for. */
export function TenantTable({ search, total, isNarrowed, onSort, chosen, onChoose }: TenantTableProps) {
  const box = useRef<HTMLDivElement>(null);
  const virtualizer = useVirtualizer({
    count: total,
    getScrollElement: () => box.current,
    estimateSize: () => ROW_HEIGHT,
    overscan: 8,
  });
  // A new search or order starts at the top. The table itself stays, and the keyboard's focus with it.
  const looked = JSON.stringify(search);
  useLayoutEffect(() => {
    box.current?.scrollTo(0, 0);
  }, [looked]);
  const rows = virtualizer.getVirtualItems();
  const pages = useMemo(() => {
    const seen = new Set(rows.map(({ index }) => Math.floor(index / TENANTS_A_PAGE)));
    return [...seen].toSorted((a, b) => a - b);
  }, [rows]);
  const found = useQueries({ queries: pages.map((page) => tenantsQuery(search, page)) });
  const tenantAt = (index: number): Tenant | undefined => {
    const at = pages.indexOf(Math.floor(index / TENANTS_A_PAGE));
    const query = found[at];
    return query?.isPlaceholderData ? undefined : query?.data?.items[index % TENANTS_A_PAGE];
  };
  if (total === 0)
    return (
      <section className="card">
        {isNarrowed ? (
          <Empty title="No tenant is like that">Look for less, or for something else.</Empty>
        ) : (
          <Empty title="There are no tenants yet">
            <code>synapse-shards tenant create clinic-a --wait</code> makes the first
          </Empty>
        )}
      </section>
    );
  const toggle = (name: string) => {
    const next = new Set(chosen);
    if (!next.delete(name)) next.add(name);
    onChoose(next);
  };
  return (
    <div className="card grid" ref={box} role="table" aria-label="Tenants" aria-rowcount={total + 1} tabIndex={0}>
      <div className="grid-head" role="rowgroup">
        <div role="row" aria-rowindex={1} className="grid-row" data-choosable={chosen !== undefined}>
          {chosen && (
            <span role="columnheader">
              <span className="visually-hidden">Chosen</span>
            </span>
          )}
          {COLUMNS.map(({ key, name }) => (
            <SortHeader key={key} column={key} name={name} search={search} onSort={onSort} />
          ))}
        </div>
      </div>
      <div role="rowgroup" className="grid-body" style={{ height: virtualizer.getTotalSize() }}>
        {rows.map(({ index, start }) => {
          const tenant = tenantAt(index);
          return (
            <div
              key={index}
              role="row"
              aria-rowindex={index + 2}
              className="grid-row"
              data-choosable={chosen !== undefined}
              style={{ transform: `translateY(${start}px)` }}
            >
              {chosen && (
                <span role="cell">
                  {tenant && (
                    <input
                      type="checkbox"
                      aria-label={`Choose ${tenant.metadata.name}`}
                      checked={chosen.has(tenant.metadata.name)}
                      onChange={() => toggle(tenant.metadata.name)}
                    />
                  )}
                </span>
              )}
              {tenant ? <Cells tenant={tenant} /> : <span role="cell">…</span>}
            </div>
          );
        })}
      </div>
    </div>
  );
}

function SortHeader({
  column,
  name,
  search,
  onSort,
}: {
  column: SortKey;
  name: string;
  search: TenantsSearch;
  onSort: TenantTableProps["onSort"];
}) {
  const isSorted = (search.sort ?? "name") === column;
  const order = isSorted ? (search.order ?? "ascending") : undefined;
  return (
    <span role="columnheader" aria-sort={order ?? "none"} className={`column-${column}`}>
      <button
        type="button"
        className="sort"
        onClick={() => onSort(column, order === "ascending" ? "descending" : "ascending")}
      >
        {name}
        <span aria-hidden="true">{order === undefined ? "" : order === "ascending" ? " ↑" : " ↓"}</span>
      </button>
    </span>
  );
}

function Cells({ tenant }: { tenant: Tenant }) {
  const { metadata, spec, status, change } = tenant;
  return (
    <>
      <span role="cell" className="column-name">
        <Link to="/tenants/$name" params={{ name: metadata.name }}>
          {metadata.name}
        </Link>
        {Object.entries(spec.labels ?? {})
          .slice(0, 2)
          .map(([key, value]) => (
            <span key={key} className="tag">
              {value === "" ? key : `${key}=${value}`}
            </span>
          ))}
      </span>
      <span role="cell" className="column-serverName" title={spec.serverName}>
        {spec.serverName}
      </span>
      <span role="cell" className="column-phase">
        <Phase kind="Tenant" phase={status.phase} />
        {change.state === "Refused" && <Badge tone="warn">Change refused</Badge>}
      </span>
      <span role="cell" className="column-shard mono">
        {status.shard ?? (status.dedicated ? "dedicated" : "–")}
      </span>
      <span role="cell" className="column-release mono">
        {spec.release || status.fleetRelease || "–"}
      </span>
      <span role="cell" className="column-created muted">
        <Ago at={metadata.creationTimestamp} />
      </span>
    </>
  );
}
