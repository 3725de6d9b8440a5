import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { DirectoryTarget } from "../../src/backups/directory-target.ts";
import { S3Target } from "../../src/backups/s3-target.ts";
import { backupTarget } from "../../src/backups/target.ts";
import { contentOf, describeBackupTargetContract } from "../ports/backup-target-contract.ts";
import { S3_ACCESS as ACCESS, startS3, VERSITYGW } from "../support/s3-server.ts";

async function folder(): Promise<string> {
  return mkdtemp(join(tmpdir(), "synapse-shards-targets-"));
}

describeBackupTargetContract("a directory", async () => {
  const directory = await folder();
  const close = () => rm(directory, { recursive: true, force: true });
  return { target: new DirectoryTarget(join(directory, "made", "when", "needed")), close };
});

describe.skipIf(!existsSync(VERSITYGW))("with a real S3 server", () => {
  const place = { bucket: "backups", prefix: "of/this/cluster/", region: "us-east-1" };

  describeBackupTargetContract("a bucket", async () => {
    const { endpoint, close } = await startS3();
    return { target: new S3Target({ ...place, endpoint }, async () => ACCESS), close };
  });

  it("says that credentials are refused, that there is no such bucket, and that nobody answers", async () => {
    const { endpoint, close } = await startS3();
    const wrong = new S3Target({ ...place, endpoint }, async () => ({ ...ACCESS, secretAccessKey: "wrong" }));
    await expect(wrong.put("a", Buffer.from("x"))).rejects.toMatchObject({
      code: "Unauthorized",
      message: expect.stringContaining("s3://backups/of/this/cluster/") as string,
    });
    const elsewhere = new S3Target({ ...place, bucket: "nowhere", endpoint }, async () => ACCESS);
    await expect(elsewhere.put("a", Buffer.from("x"))).rejects.toMatchObject({ code: "Environment" });
    await close();
    const away = new S3Target({ ...place, endpoint }, async () => ACCESS);
    await expect(away.put("a", Buffer.from("x"))).rejects.toMatchObject({ code: "Unavailable" });
  });

  it("says that an object is damaged, where it has another content by now", async () => {
    const { endpoint, directory, close } = await startS3();
    const target = new S3Target({ ...place, endpoint }, async () => ACCESS);
    await target.put("backups/a", Buffer.from("what was stored"));
    await writeFile(join(directory, place.prefix, "backups/a"), "what was damaged");
    await expect(contentOf(target, "backups/a")).rejects.toMatchObject({
      code: "InvalidInput",
      message: expect.stringContaining("backups/a in s3://backups/of/this/cluster/") as string,
    });
    await close();
  });
});

it("names the directory that cannot be used, and why", async () => {
  const directory = await folder();
  await writeFile(join(directory, "file"), "");
  await expect(new DirectoryTarget(join(directory, "file")).put("a", Buffer.from("x"))).rejects.toMatchObject({
    code: "Unavailable",
    message: expect.stringContaining(join(directory, "file")) as string,
  });
  await rm(directory, { recursive: true });
});

it("removes what a crash left half written, and nothing that is being written", async () => {
  const directory = await folder();
  await mkdir(join(directory, "backups"));
  const [old, recent] = ["old.dump.part", "recent.dump.part"].map((name) => join(directory, "backups", name));
  for (const file of [old!, recent!]) await writeFile(file, "half");
  await utimes(old!, 0, 0);
  const keys: string[] = [];
  for await (const { key } of new DirectoryTarget(directory).list("backups/")) keys.push(key);
  expect(keys).toEqual([]);
  expect([existsSync(old!), existsSync(recent!)]).toEqual([false, true]);
  await rm(directory, { recursive: true });
});

/** A device that takes no byte stands for a full disk. */
it.skipIf(!existsSync("/dev/full"))("says that the disk is full, and has nothing of what did not fit", async () => {
  const directory = await folder();
  await mkdir(join(directory, "backups"));
  await symlink("/dev/full", join(directory, "backups", "dump.part"));
  const target = new DirectoryTarget(directory);
  await expect(target.put("backups/dump", Buffer.alloc(1000))).rejects.toMatchObject({
    code: "Unavailable",
    message: expect.stringContaining("no space is left") as string,
  });
  await expect(target.get("backups/dump")).rejects.toMatchObject({ code: "NotFound" });
  await rm(directory, { recursive: true });
});

it("refuses a target that would be lost with the data directory", () => {
  expect(() => backupTarget({ directory: "/srv/data/backups" }, "/srv/data")).toThrow(/is in the data directory/);
  expect(backupTarget({ directory: "/srv/data-backups" }, "/srv/data").place).toBe("/srv/data-backups");
});
