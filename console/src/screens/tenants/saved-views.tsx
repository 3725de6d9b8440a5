import { useState } from "react";
import type { TenantsSearch } from "../../api/queries.ts";

interface View {
  name: string;
  search: TenantsSearch;
}

const KEY = "synapse-shards-views";
const MOST = 20;
const LONGEST_NAME = 40;

/** What a person looks for again and again, under names; kept by the browser. */
export function SavedViews({
  search,
  isWorthIt,
  apply,
}: {
  search: TenantsSearch;
  /** Whether it is more than the list as it is. */
  isWorthIt: boolean;
  apply: (search: TenantsSearch) => void;
}) {
  const [views, setViews] = useState(keptViews);
  const [name, setName] = useState("");
  const keep = (next: View[]) => {
    localStorage.setItem(KEY, JSON.stringify(next));
    setViews(next);
  };
  const without = (gone: string) => views.filter((view) => view.name !== gone);
  const wanted = name.trim();
  if (views.length === 0 && !isWorthIt) return null;
  return (
    <div className="row" role="group" aria-label="Saved views">
      {views.map((view) => (
        <span key={view.name} className="saved-view">
          <button type="button" className="small" onClick={() => apply(view.search)}>
            {view.name}
          </button>
          <button type="button" className="quiet small" onClick={() => keep(without(view.name))}>
            ✕<span className="visually-hidden"> Remove the view {view.name}</span>
          </button>
        </span>
      ))}
      {isWorthIt && views.length < MOST && (
        <form
          className="row"
          onSubmit={(event) => {
            event.preventDefault();
            keep([...without(wanted), { name: wanted, search }].toSorted((a, b) => a.name.localeCompare(b.name)));
            setName("");
          }}
        >
          <input
            aria-label="Name of this view"
            placeholder="Name of this view"
            maxLength={LONGEST_NAME}
            value={name}
            onChange={({ target }) => setName(target.value)}
          />
          <button className="small" disabled={wanted === ""}>
            Save this view
          </button>
        </form>
      )}
    </div>
  );
}

/** What the browser has kept may be of an earlier version, or anybody's. */
function keptViews(): View[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    if (!Array.isArray(kept)) return [];
    return kept
      .filter(
        (one): one is View => typeof one?.name === "string" && typeof one.search === "object" && one.search !== null,
      )
      .slice(0, MOST);
  } catch {
    return [];
  }
}
