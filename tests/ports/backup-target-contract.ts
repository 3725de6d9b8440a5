import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { BackupTarget, Bytes } from "../../src/ports/backups.ts";

export interface TargetUnderTest {
  target: BackupTarget;
  close(): Promise<void>;
}

/** What all that keeps backups does (the comments of `BackupTarget`). */
export function describeBackupTargetContract(name: string, open: () => Promise<TargetUnderTest>): void {
  describe(`${name} as a backup target`, () => {
    let here: TargetUnderTest;
    beforeAll(async () => (here = await open()));
    afterAll(() => here?.close());

    it("gives back what was put, also what is larger than one part", async () => {
      const { target } = here;
      const large = Buffer.alloc(17 * 1024 * 1024, "large");
      await target.put("some/large", chunksOf(large));
      expect(Buffer.compare(await contentOf(target, "some/large"), large)).toBe(0);
      await target.put("some/small", Buffer.from("first"));
      await target.put("some/small", Buffer.from("second"));
      expect((await contentOf(target, "some/small")).toString()).toBe("second");
      await target.put("some/empty", chunksOf(Buffer.alloc(0)));
      expect((await contentOf(target, "some/empty")).length).toBe(0);
    });

    it("has nothing of what broke off, and says why it did", async () => {
      const { target } = here;
      async function* broken(): Bytes {
        yield Buffer.alloc(6 * 1024 * 1024);
        throw new Error("the dump broke off");
      }
      await expect(target.put("broken/dump", broken())).rejects.toThrow("the dump broke off");
      expect(await keysOf(target, "broken/")).toEqual([]);
      await expect(target.get("broken/dump")).rejects.toMatchObject({ code: "NotFound" });
    });

    it("lists by what keys begin with, sizes included, and removes", async () => {
      const { target } = here;
      for (const key of ["list/a/1", "list/a/2", "list/ab/3", "other/4"]) await target.put(key, Buffer.from(key));
      expect(await keysOf(target, "list/a/")).toEqual(["list/a/1", "list/a/2"]);
      expect(await keysOf(target, "list/")).toEqual(["list/a/1", "list/a/2", "list/ab/3"]);
      for await (const { bytes, modifiedAt } of target.list("list/a/1")) {
        expect(bytes).toBe(8);
        expect(Math.abs(Date.now() - modifiedAt)).toBeLessThan(3_600_000);
      }
      await target.remove("list/a/1");
      await target.remove("list/a/1");
      expect(await keysOf(target, "list/a/")).toEqual(["list/a/2"]);
      expect(await keysOf(target, "nothing/")).toEqual([]);
    });

    it("refuses keys that lead elsewhere", async () => {
      for (const key of ["../x", "a/../../x", "/x", "a//b", ".hidden", ""])
        await expect(here.target.put(key, Buffer.from("x"))).rejects.toThrow(/no key/);
    });
  });
}

export async function contentOf(target: BackupTarget, key: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of await target.get(key)) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function keysOf(target: BackupTarget, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of target.list(prefix)) keys.push(key);
  return keys.toSorted();
}

async function* chunksOf(content: Buffer): Bytes {
  for (let at = 0; at < content.length; at += 65_536) yield content.subarray(at, at + 65_536);
}
