import { expect, it } from "vitest";
import { copyMedia } from "../../../src/controller/imports/media.ts";
import type { MediaPlace } from "../../../src/model/import.ts";
import type { Bytes, TenantMediaFiles } from "../../../src/ports/backups.ts";
import type { ImportSource } from "../../../src/ports/imports.ts";

const BUCKET = { bucket: "old" } as unknown as MediaPlace;
const DIRECTORY = "/old/media" as unknown as MediaPlace;
/** What an old server has: the same file whole in its bucket, and cut off on its disk. */
const OLD = new Map<MediaPlace, Record<string, string>>([
  [BUCKET, { "local_content/a": "whole" }],
  [DIRECTORY, { "local_content/a": "wh", "local_content/b": "only here" }],
]);

function ends(staged: Map<string, string>) {
  const source = {
    async *media(place: MediaPlace) {
      for (const [path, text] of Object.entries(OLD.get(place)!)) yield { path, bytes: text.length, modifiedAt: 0 };
    },
    openMedia: async (place: MediaPlace, path: string) => bytes(OLD.get(place)![path]!),
  };
  const media = {
    hasStaged: async (_tenant: string, file: { path: string; bytes: number }) =>
      staged.get(file.path)?.length === file.bytes,
    stage: async (_tenant: string, path: string, content: Bytes) => {
      let text = "";
      for await (const chunk of content) text += String(chunk);
      staged.set(path, text);
    },
    openStaged: async (_tenant: string, path: string) => bytes(staged.get(path)!),
  };
  return { source: source as unknown as ImportSource, media: media as unknown as TenantMediaFiles };
}

async function* bytes(text: string) {
  yield Buffer.from(text);
}

it("takes and counts a file that is in several places once, from the first of them, also the second time", async () => {
  const staged = new Map<string, string>();
  const work = { say: () => {}, signal: new AbortController().signal, now: () => 0 };
  for (const copied of [2, 0]) {
    expect(await copyMedia(ends(staged), "a", [BUCKET, DIRECTORY], work)).toEqual({ files: 2, copied });
    expect(Object.fromEntries(staged)).toEqual({ "local_content/a": "whole", "local_content/b": "only here" });
  }
});
