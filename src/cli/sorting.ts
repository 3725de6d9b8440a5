import { Option } from "commander";

export interface SortOptions {
  sortBy?: string;
  desc?: boolean;
}

/** @param fields those of a row that it can be sorted by */
export function sortOptions(fields: readonly string[]): [Option, Option] {
  return [
    new Option("--sort-by <field>", "the field that rows are sorted by").choices(fields),
    new Option("--desc", "the largest first"),
  ];
}

/** Numbers by size, words as people sort them ("shard-10" after "shard-9"), and what is missing last. Stable. */
export function sorted<T extends object>(rows: readonly T[], { sortBy, desc }: SortOptions): T[] {
  if (sortBy === undefined) return desc ? rows.toReversed() : [...rows];
  const at = (row: T) => (row as Record<string, unknown>)[sortBy] ?? undefined;
  return rows.toSorted((left, right) => {
    const [a, b] = [at(left), at(right)];
    if (a === undefined || b === undefined) return Number(a === undefined) - Number(b === undefined);
    const order = typeof a === "number" && typeof b === "number" ? a - b : words.compare(String(a), String(b));
    return desc ? -order : order;
  });
}

const words = new Intl.Collator("en", { numeric: true });
