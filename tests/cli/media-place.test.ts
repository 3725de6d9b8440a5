import { expect, it } from "vitest";
import { mediaIn } from "../../src/cli/commands/media-place.ts";

const mediaCredentials = "/etc/s3.yaml";

it("takes a bucket as a URL, with its keys in a file", async () => {
  const more = { mediaCredentials, mediaEndpoint: "https://s3.example", mediaRegion: "eu" };
  expect(await mediaIn({ media: "s3://old-media/a/b", ...more })).toEqual({
    bucket: "old-media",
    prefix: "a/b/",
    endpoint: "https://s3.example",
    region: "eu",
    credentialsFile: "/etc/s3.yaml",
  });
  for (const media of ["s3://old-media", "s3://old-media/"])
    expect(await mediaIn({ media, mediaCredentials })).toMatchObject({ bucket: "old-media", prefix: "" });
});

it("takes a directory, and says what is missing or in vain", async () => {
  expect(await mediaIn({ media: "/srv/media" })).toBe("/srv/media");
  expect(await mediaIn({})).toBeUndefined();
  await expect(mediaIn({ media: "s3://old-media/" })).rejects.toThrow("needs --media-credentials FILE");
  for (const media of ["s3:", "s3:///x"])
    await expect(mediaIn({ media, mediaCredentials })).rejects.toThrow("s3://BUCKET/PREFIX");
  await expect(mediaIn({ media: "/srv/media", mediaCredentials })).rejects.toThrow("are for --media s3://");
});
