import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { ShardUnreachable } from "../../src/ports/shard-control.ts";
import { ControlClient } from "../../src/shard/control-client.ts";

const ends: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

// Guards against: a tenant whose users make series without end, and a scrape of it that fills the controller's memory.
test("reads no answer without end", async () => {
  let isEnded: () => void = () => {};
  const ended = new Promise<void>((done) => (isEnded = done));
  const piece = `synapse_pushers{app_id="${"x".repeat(64 * 1024)}"} 1\n`;
  const server = createServer((_, response) => {
    const write = () => {
      while (response.write(piece));
    };
    response.on("drain", write).on("close", isEnded);
    write();
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  ends.push(() => void server.close());
  const client = new ControlClient("1.163.2-0", `http://127.0.0.1:${(server.address() as AddressInfo).port}`, "token");
  ends.push(() => client.close());
  const failure: unknown = await client.metricsOf("a").catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(ShardUnreachable);
  expect(String((failure as Error).cause)).toContain("more than 16 MiB");
  await ended;
});
