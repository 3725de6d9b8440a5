import { describe, expect, it } from "vitest";
import {
  ACCOUNT_WINDOW_MS,
  covers,
  DOMAIN_WINDOW_MS,
  endsSoon,
  isCertifiable,
  mayOrderAt,
  renewAt,
  wantedNames,
} from "../../../src/controller/certificates/wanted.ts";

const DAY = 86_400_000;
const NOW = Date.parse("2026-06-01T00:00:00.000Z");
const at = (milliseconds: number) => new Date(milliseconds).toISOString();

describe("wanted certificates", () => {
  it("are for names that the world can know", () => {
    expect(["clinic.example", "a.b.example", "xn--bcher-kva.example"].map(isCertifiable)).toEqual([true, true, true]);
    const none = [
      "localhost",
      "a.localhost",
      "printer.local",
      "192.0.2.1",
      "2001:db8::1",
      "clinic",
      "a..example",
      "A.example",
      "a.example:8448",
    ];
    expect(none.filter(isCertifiable)).toEqual([]);
  });

  it("are one for each host, and one for all in the base domain where records can be published", () => {
    const hosts = [
      { tenant: "a", hosts: ["a.hosting.example"] },
      { tenant: "b", hosts: ["b.hosting.example", "deep.b.hosting.example"] },
      { tenant: "z", hosts: ["clinic-z.example", "matrix.clinic-z.example"] },
    ];
    expect([...wantedNames(hosts, "hosting.example")]).toEqual([
      ["*.hosting.example", null],
      ["deep.b.hosting.example", "b"],
      ["clinic-z.example", "z"],
      ["matrix.clinic-z.example", "z"],
    ]);
    expect([...wantedNames(hosts, undefined).keys()]).toHaveLength(5);
    expect([...wantedNames([{ tenant: "a", hosts: ["a.localhost"] }], "localhost")]).toEqual([]);
  });

  it("a wildcard stands for one label", () => {
    expect(covers("*.a.example", "b.a.example")).toBe(true);
    expect(covers("*.a.example", "c.b.a.example")).toBe(false);
    expect(covers("*.a.example", "a.example")).toBe(false);
  });
});

describe("limits", () => {
  const limits = { ordersPerThreeHours: 2, ordersPerDomainAndWeek: 3 };
  const order = (ago: number, domain = "a.example", isRenewal = false) => ({
    at: at(NOW - ago),
    name: domain,
    domain,
    isRenewal,
  });
  const may = (orders: ReturnType<typeof order>[], isRenewal = false) =>
    mayOrderAt(orders, { domain: "a.example", isRenewal }, limits, NOW) - NOW;

  it("let what is within them go at once", () => expect(may([order(1), order(ACCOUNT_WINDOW_MS + 1)])).toBe(0));

  it("of the account count every order of three hours", () => {
    expect(may([order(1_000, "b.example"), order(5_000, "c.example", true)])).toBe(ACCOUNT_WINDOW_MS - 5_000);
    expect(may([order(1), order(2)], true)).toBe(ACCOUNT_WINDOW_MS - 2);
  });

  it("of a registered domain count new certificates of a week, and leave renewals to the account", () => {
    const old = [2, 3, 4].map((days) => order(days * DAY));
    expect(may(old)).toBe(DOMAIN_WINDOW_MS - 4 * DAY);
    expect(may(old, true)).toBe(0);
    expect(may([...old.slice(1), order(2 * DAY, "a.example", true), order(2 * DAY, "b.example")])).toBe(0);
  });
});

describe("renewal", () => {
  const issued = { certificate: "", key: "", notBefore: at(NOW), notAfter: at(NOW + 90 * DAY) };

  it("comes after two thirds of the life at the latest, spread over a tenth of it", () => {
    expect(renewAt(issued, 0)).toBe(NOW + 60 * DAY);
    expect(renewAt(issued, 0.999) - NOW).toBeGreaterThan(50 * DAY);
  });

  it("comes when the authority suggests it, unless that makes no sense", () => {
    const [start, end] = [at(NOW + 10 * DAY), at(NOW + 12 * DAY)];
    expect(renewAt({ ...issued, suggested: { start, end } }, 0.5)).toBe(NOW + 11 * DAY);
    expect(renewAt({ ...issued, suggested: { start: end, end: start } }, 0)).toBe(NOW + 60 * DAY);
  });

  it("is missed when a fifth of the life is left", () => {
    expect([70, 73].map((days) => endsSoon(issued, NOW + days * DAY))).toEqual([false, true]);
  });
});
