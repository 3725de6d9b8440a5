import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Route } from "../../src/model/routes.ts";
import { readRoutesFile, RoutesWriter, textOf } from "../../src/gateway/routes-file.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "routes-test-"));
});
afterEach(() => rm(directory, { recursive: true }));

function unexpected(error: unknown): void {
  throw error;
}

function routesOf(count: number, epoch = 1): Route[] {
  return Array.from({ length: count }, (_, i) => ({
    tenant: `t${i}`,
    hosts: [`t${i}.example`],
    state: "serving",
    address: `127.0.0.1:${1024 + (i % 60_000)}`,
    epoch,
  }));
}

describe("the routes file", () => {
  it.each([0, 1, 199, 200, 201, 1_000])("writes all of %i routes", async (count) => {
    const path = join(directory, "routes.json");
    const routes = routesOf(count);
    const writer = new RoutesWriter(path, () => routes, unexpected);
    writer.schedule();
    await writer.flush();
    expect(await readRoutesFile(path)).toEqual(routes);
  });

  it("writes the routes of very many tenants in pieces", () => {
    let longest = 0;
    for (const piece of textOf(routesOf(10_000))) longest = Math.max(longest, piece.length);
    expect(longest).toBeLessThan(64 * 1024);
  });

  it("a stop writes what changed while the writer rested", async () => {
    const path = join(directory, "routes.json");
    let routes = routesOf(2_000);
    const writer = new RoutesWriter(path, () => routes, unexpected);
    writer.schedule();
    await expect.poll(() => readRoutesFile(path)).toBeDefined();
    routes = routesOf(3, 2);
    writer.schedule();
    await writer.flush();
    expect(await readRoutesFile(path)).toEqual(routes);
  });
});
