import { randomBytes } from "node:crypto";
import { gzipSync } from "node:zlib";
import { expect, it } from "vitest";
import { packed, unpacked, type Kept } from "../../../../src/platforms/kubernetes/store/deleted-record.ts";
import { RecordTooLarge } from "../../../../src/ports/deleted-tenants.ts";
import { recordOf } from "../../../ports/deleted-tenants-contract.ts";

const secret = (data: Record<string, string>) => ({ metadata: { name: "c.a.deleted" }, data });
const kept = (config: string): Kept => ({
  record: recordOf("a"),
  definition: { labels: {}, annotations: {}, spec: { clusterId: "c", serverName: "a.example", config } },
});

it("takes what the API server takes in an object, and gives it back", () => {
  // YAML, with what JSON escapes.
  const large = kept('key: "value"\n'.repeat(115_000));
  const data = packed(large);
  expect(Buffer.from(Object.values(data)[0]!, "base64").length).toBeLessThan(1024 * 1024);
  expect(unpacked(secret(data))).toEqual(large);
});

it("reads what earlier versions wrote", () => {
  const text = JSON.stringify(kept("a: 1"));
  expect(unpacked(secret({ "record.json": Buffer.from(text).toString("base64") }))).toEqual(kept("a: 1"));
});

it("says what to do about what does not fit, and takes it without its definition", () => {
  const large = kept(randomBytes(1_100_000).toString("base64"));
  expect(() => packed(large)).toThrow(RecordTooLarge);
  expect(() => packed(large)).toThrow(/of a takes \d+ bytes .* or set reclaimPolicy: Delete/);
  expect(unpacked(secret(packed({ record: large.record })))).toEqual({ record: large.record });
});

it("unpacks no more than is ever packed, and nothing else", () => {
  const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024)).toString("base64");
  const wrong: Record<string, string>[] = [{ "record.json.gz": bomb }, { "record.json.gz": "bm8=" }, {}];
  for (const data of wrong)
    expect(() => unpacked(secret(data))).toThrow("the Secret c.a.deleted has no record of a deleted tenant");
});
