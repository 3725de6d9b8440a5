import { expect, it } from "vitest";
import { tenantNameProblem } from "../../src/model/names.ts";
import { freeStorageName } from "../../src/model/storage-name.ts";

it("names a tenant's data by its name, unless another tenant's are named so", () => {
  expect(freeStorageName("a", "a.example", () => false)).toBe("a");
  const other = freeStorageName("a", "a.example", (storage) => storage === "a");
  expect(other).toMatch(/^a-[0-9a-f]{8}$/);
  expect(freeStorageName("a", "a.example", (storage) => storage === "a")).toBe(other);
  expect(freeStorageName("a", "b.example", (storage) => storage === "a")).not.toBe(other);
  expect(freeStorageName("a", "a.example", (storage) => ["a", other].includes(storage))).not.toBe(other);
});

it("names data so that databases and directories can have the name, however long the tenant's is", () => {
  const long = `${"a".repeat(53)}-${"b".repeat(9)}`;
  const storage = freeStorageName(long, "a.example", (name) => name === long);
  expect(storage).toHaveLength(63);
  expect(tenantNameProblem(storage)).toBeUndefined();
});
