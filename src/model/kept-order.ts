/** Where more than this part of the keys changed, all are sorted: that is quicker than to put so many in. */
const MOST_CHANGED = 1 / 4;

/**
 * Many things in the order of a key, kept from one time to the next, as nearly all keys stay the same meanwhile: what changed is taken out, sorted and
 * put in again, which is linear. Equals are in the order in which they are given.
 */
export class KeptOrder<T> {
  readonly #idOf: (item: T) => string;
  readonly #keyOf: (item: T) => string;
  #ids: string[] = [];
  #keys: string[] = [];
  /** Places among what was given, in the order of their keys. */
  #order: number[] = [];

  constructor(idOf: (item: T) => string, keyOf: (item: T) => string) {
    this.#idOf = idOf;
    this.#keyOf = keyOf;
  }

  /** @param items by their ids, each of which is there once @returns their places, in the order of their keys */
  of(items: readonly T[], isDescending = false): number[] {
    const ids = items.map(this.#idOf);
    const keys = items.map(this.#keyOf);
    const placeNow = placesIn(ids, this.#ids);
    const isNew = new Uint8Array(items.length).fill(1);
    const stay: number[] = [];
    for (const before of this.#order) {
      const place = placeNow(before);
      if (place === undefined || keys[place] !== this.#keys[before]) continue;
      isNew[place] = 0;
      stay.push(place);
    }
    [this.#ids, this.#keys, this.#order] = [ids, keys, withNew(keys, stay, isNew)];
    return isDescending ? backwards(keys, this.#order) : this.#order.slice();
  }
}

/** @param stay places that are in order already */
function withNew(keys: readonly string[], stay: number[], isNew: Uint8Array): number[] {
  const areNew = keys.length - stay.length;
  if (areNew === 0) return stay;
  const places = [...keys.keys()];
  if (areNew > keys.length * MOST_CHANGED) return sorted(keys, places);
  const come = sorted(
    keys,
    places.filter((place) => isNew[place] === 1),
  );
  return mergedOrder(stay, come, (a, b) => (keys[a] === keys[b] ? a < b : keys[a]! < keys[b]!));
}

/** Equals stay as they are. */
function backwards(keys: readonly string[], order: readonly number[]): number[] {
  const all: number[] = [];
  for (let end = order.length; end > 0;) {
    let begin = end - 1;
    while (begin > 0 && keys[order[begin - 1]!] === keys[order[begin]!]) begin -= 1;
    for (let at = begin; at < end; at++) all.push(order[at]!);
    end = begin;
  }
  return all;
}

/** Both in the order of ids. @returns where what was at a place is now, if it is there */
function placesIn(now: readonly string[], before: readonly string[]): (place: number) => number | undefined {
  const isSame = now.length === before.length && now.every((id, place) => id === before[place]);
  if (isSame) return (place) => place;
  const places = new Int32Array(before.length).fill(-1);
  let at = 0;
  for (const [place, id] of before.entries()) {
    while (at < now.length && now[at]! < id) at += 1;
    if (now[at] === id) places[place] = at;
  }
  return (place) => (places[place] === -1 ? undefined : places[place]);
}

/** Few keys of many are distinct (phases, shards, releases): those alone are sorted. @param places in order, which decides between equals */
function sorted(keys: readonly string[], places: readonly number[]): number[] {
  const having = new Map<string, number[]>();
  for (const place of places) {
    const key = keys[place]!;
    const others = having.get(key);
    if (others) others.push(place);
    else having.set(key, [place]);
  }
  return [...having.keys()].toSorted((a, b) => (a < b ? -1 : 1)).flatMap((key) => having.get(key)!);
}

/** @param isBefore whether one of the first goes before one of the second */
export function mergedOrder<T>(first: readonly T[], second: readonly T[], isBefore: (a: T, b: T) => boolean): T[] {
  const all: T[] = [];
  let [i, j] = [0, 0];
  while (i < first.length && j < second.length) all.push(isBefore(first[i]!, second[j]!) ? first[i++]! : second[j++]!);
  while (i < first.length) all.push(first[i++]!);
  while (j < second.length) all.push(second[j++]!);
  return all;
}
