import { UserError } from "../../../../src/model/errors.ts";
import type { ObjectData, Shelf, ShelfObject } from "../../../../src/platforms/kubernetes/secret-shelf.ts";

export type ShelfCall = "read" | "create" | "replace" | "remove" | "names";
/** Before it is carried out, or after: the answer is lost. */
export type ShelfFault = "before" | "after" | undefined;

/** What the API server has, with optimistic concurrency; each client of it fails as it is told. */
export class FakeShelves {
  readonly objects = new Map<string, ShelfObject>();
  #version = 0;

  /** @param fault decides about each call */
  client(fault: (call: ShelfCall, name: string) => ShelfFault = () => undefined): Shelf {
    const carryOut = async <T>(call: ShelfCall, name: string, act: () => T): Promise<T> => {
      await Promise.resolve();
      const failing = fault(call, name);
      const away = new UserError("Unavailable", `cannot ${call} ${name}: made up`);
      if (failing === "before") throw away;
      const result = act();
      if (failing === "after") throw away;
      return result;
    };
    return {
      read: (name) => carryOut("read", name, () => this.objects.get(name)),
      create: (name, data) =>
        carryOut("create", name, () => {
          if (this.objects.has(name)) throw new UserError("Conflict", `${name} is there`);
          return this.put(name, data);
        }),
      replace: (name, data, version) =>
        carryOut("replace", name, () => {
          const present = this.objects.get(name);
          if (!present) return undefined;
          if (present.version !== version) throw new UserError("Conflict", `${name} is another`);
          return this.put(name, data);
        }),
      remove: (name) => carryOut("remove", name, () => void this.objects.delete(name)),
      names: () => carryOut("names", "", () => [...this.objects.keys()]),
    };
  }

  /** As somebody else does. */
  put(name: string, data: ObjectData): string {
    const version = String(++this.#version);
    this.objects.set(name, { data, version });
    return version;
  }
}
