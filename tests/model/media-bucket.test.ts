import { expect, it } from "vitest";
import { mediaBucketOf } from "../../src/model/media-bucket.ts";

const provider = (settings: object) =>
  JSON.stringify({
    media_storage_providers: [
      { module: "another.Provider", config: {} },
      { module: "s3_storage_provider.S3StorageProviderBackend", store_synchronous: true, config: settings },
    ],
  });
const KEYS = { access_key_id: "id", secret_access_key: "secret" };

it("reads the bucket as the storage provider does", () => {
  expect(mediaBucketOf(provider({ bucket: "clinic-a", ...KEYS }))).toEqual({
    bucket: "clinic-a",
    prefix: "",
    region: "us-east-1",
    accessKeyId: "id",
    secretAccessKey: "secret",
  });
  const settings = { bucket: "b", prefix: "media/", endpoint_url: "https://s3.example:7070", region_name: "eu" };
  expect(mediaBucketOf(provider({ ...settings, ...KEYS }))).toMatchObject({
    prefix: "media/",
    endpoint: "https://s3.example:7070",
    region: "eu",
  });
});

it.each([
  ["no provider", "server_name: a.example", "names no bucket"],
  ["what is no YAML", "a: [", "names no bucket"],
  ["a bucket without keys", provider({ bucket: "b", access_key_id: "id" }), "no access_key_id and secret_access_key"],
  [
    "media that only their tenant can decrypt",
    provider({ bucket: "b", ...KEYS, sse_customer_key: "k" }),
    "sse_customer_key",
  ],
  ["an endpoint that is none", provider({ bucket: "b", ...KEYS, endpoint_url: "file:///etc" }), "endpoint_url"],
])("says why media cannot be reached: %s", (_what, config, why) => {
  expect(mediaBucketOf(config)).toContain(why);
});
