import { expect, it } from "vitest";
import { TenantMedia } from "../../../../src/platforms/local/launcher/tenant-media.ts";

it("knows whose media are at a path that it gave out, and of no other path", () => {
  const media = new TenantMedia("/srv/data/media", false);
  expect(media.ownerOf(media.pathOf("clinic-a"))).toBe("clinic-a");
  for (const path of ["/srv/data/media", "/srv/data/media/..", "/srv/data/media/a/b", "/srv/a", "media/a", undefined])
    expect(media.ownerOf(path)).toBeUndefined();
});
