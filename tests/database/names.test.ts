import * as fc from "fast-check";
import { expect, test } from "vitest";
import { templateDatabaseName, tenantDatabaseName } from "../../src/database/names.ts";

const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/);
/** Long labels that agree in their beginning, and that look like shortened names. */
const similar = fc
  .tuple(
    fc.constantFrom("a".repeat(39), "a".repeat(38), "a".repeat(47)),
    fc.stringMatching(/^[-0-9a-f]{0,15}[0-9a-f]$/),
  )
  .map(([begin, end]) => begin + end);

test("gives each tenant a database name of its own that PostgreSQL does not cut off", () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.oneof(label, similar), { minLength: 2, maxLength: 40 }), (tenants) => {
      const names = tenants.map(tenantDatabaseName);
      expect(new Set(names).size).toBe(names.length);
      for (const name of names) expect(name).toMatch(/^tenantx?_[a-z0-9_]+$/);
      expect(Math.max(...names.map((name) => Buffer.byteLength(name)))).toBeLessThanOrEqual(63);
    }),
  );
});

test("keeps names that a person recognises", () => {
  expect(tenantDatabaseName("clinic-a")).toBe("tenant_clinic_a");
  expect(tenantDatabaseName("a".repeat(56))).toBe(`tenant_${"a".repeat(56)}`);
  expect(tenantDatabaseName("a".repeat(57))).toMatch(/^tenantx_a{38}_[0-9a-f]{16}$/);
  expect(templateDatabaseName("1.163.2")).toBe("synapse_template_1_163_2");
});

test("refuses what is not a name", () => {
  for (const bad of ["", "A", "a_b", 'a"; DROP', "a".repeat(64), "-a"]) {
    expect(() => tenantDatabaseName(bad)).toThrow(expect.objectContaining({ code: "InvalidInput" }));
  }
  for (const bad of ["1", "latest", "1.163.2; DROP"]) {
    expect(() => templateDatabaseName(bad)).toThrow(expect.objectContaining({ code: "InvalidInput" }));
  }
});
