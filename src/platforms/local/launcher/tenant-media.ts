import { chown, chmod, lchown, lstat, mkdir, readdir, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { createHash } from "node:crypto";
import { basename, join, relative } from "node:path";
import { newId, type Owner } from "./confinement.ts";

/** Where the media of tenants are that no shard has. */
const NOWHERE = ".none";
/** No tenant is named so. */
const SHARDS = ".shards";
const STAGED = ".staged";

/**
 * The tenants' media, named by what tenants' data are named by (`storageOf`), each reachable by the shard that runs it and by no other: `media/TENANT` leads to `media/.shards/SHARD/TENANT`, and into
 * `media/.shards/SHARD` gets that shard alone, by its mode and by the kernel's file rules. So a move is the renaming of one directory, however
 * much is in it, and takes it from a shard that still runs. What is inside belongs to a group that all shards have: who may pass is
 * decided above.
 */
export class TenantMedia {
  readonly #directory: string;
  readonly #users: boolean;

  /** @param users whether shards have users of their own */
  constructor(directory: string, users: boolean) {
    this.#directory = directory;
    this.#users = users;
  }

  /** What a tenant's configuration has; the same wherever it runs. */
  pathOf(tenant: string): string {
    return join(this.#directory, tenant);
  }

  /** Whose media are at a path of `pathOf`; undefined for any other path. */
  ownerOf(path: unknown): string | undefined {
    return typeof path === "string" && path === this.pathOf(basename(path)) ? basename(path) : undefined;
  }

  /** The directory of a shard, which that shard alone can enter. */
  shardDirectory(shard: string): string {
    return join(this.#directory, SHARDS, shard);
  }

  /** The group that shards have in common. */
  async group(): Promise<number> {
    await mkdir(this.#directory, { recursive: true });
    const on = join(this.#directory, SHARDS);
    await mkdir(on, { recursive: true });
    for (const directory of [this.#directory, on]) await chmod(directory, this.#users ? 0o711 : 0o700);
    if (!this.#users) return 0;
    const { gid } = await stat(on);
    if (gid !== 0) return gid;
    const made = newId();
    await chown(on, 0, made);
    return made;
  }

  /** Makes the shard's directory, its own alone. */
  async openShard(shard: string, owner: Owner | undefined): Promise<void> {
    const directory = this.shardDirectory(shard);
    await mkdir(directory, { recursive: true });
    // It passes through it, and changes nothing in it: links in it are followed by us, who are root.
    await chmod(directory, owner ? 0o710 : 0o700);
    if (owner) await chown(directory, 0, owner.id);
  }

  /** Gives a tenant's media to a shard, and takes them from any other. */
  async admit(shard: string, tenant: string): Promise<void> {
    const group = await this.group();
    const target = join(this.shardDirectory(shard), tenant);
    const link = this.pathOf(tenant);
    const now = (await this.#whereabouts(tenant)) ?? (await this.#make(tenant));
    if (this.#users && (await lstat(now)).gid !== group) await shareTree(await this.#takeAway(now, tenant), group);
    const found = await this.#whereabouts(tenant);
    if (found !== target) await rename(found!, target);
    const wanted = join(SHARDS, shard, tenant);
    if ((await readlink(link).catch(() => undefined)) === wanted) return;
    const draft = `${link}.new`;
    await rm(draft, { force: true });
    await symlink(wanted, draft);
    await rename(draft, link);
  }

  /** Keeps the media of a shard that is removed. */
  async closeShard(shard: string): Promise<void> {
    const directory = this.shardDirectory(shard);
    for (const tenant of await readdir(directory).catch(() => []))
      await this.#takeAway(join(directory, tenant), tenant);
    await rm(directory, { recursive: true, force: true });
  }

  /** Removes the media of a tenant. */
  async remove(tenant: string): Promise<void> {
    const now = await this.#whereabouts(tenant);
    if (now !== undefined) await rm(await this.#takeAway(now, tenant), { recursive: true, force: true });
    await rm(this.pathOf(tenant), { recursive: true, force: true });
    await rm(this.stagingOf(tenant), { recursive: true, force: true });
  }

  /** Where its media are now; a move changes that. */
  directoryOf(tenant: string): Promise<string | undefined> {
    return this.#whereabouts(tenant);
  }

  /** Below it, what is to come to a tenant's media. No shard gets in. */
  stagingOf(tenant: string): string {
    return join(this.#directory, STAGED, tenant);
  }

  /** Changes a tenant's media while no shard has them; the next one that gets them can read what is new. */
  async change(tenant: string, work: (directory: string) => Promise<void>): Promise<void> {
    await this.group();
    const found = await this.#whereabouts(tenant);
    const directory = found === undefined ? await this.#make(tenant) : await this.#takeAway(found, tenant);
    // By it the next start sees that there is something to do.
    if (this.#users) await lchown(directory, 0, 0);
    await work(directory);
  }

  /** What there is of a tenant's media: of all files, how many, their size, and a hash of their names and sizes. */
  async inventory(tenant: string): Promise<{ files: number; bytes: number; sha256: string } | undefined> {
    const now = await this.#whereabouts(tenant);
    if (now === undefined) return undefined;
    const entries = await readdir(now, { recursive: true, withFileTypes: true });
    const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    const hash = createHash("sha256");
    let bytes = 0;
    for (const path of paths.toSorted()) {
      const { size } = await lstat(path);
      hash.update(`${relative(now, path)}\0${size}\n`);
      bytes += size;
    }
    return { files: paths.length, bytes, sha256: hash.digest("hex") };
  }

  async #make(tenant: string): Promise<string> {
    const path = join(this.shardDirectory(NOWHERE), tenant);
    await mkdir(path, { recursive: true, mode: 0o700 });
    return path;
  }

  /** To where no shard can change it, while we look at what is in it. */
  async #takeAway(from: string, tenant: string): Promise<string> {
    const nowhere = this.shardDirectory(NOWHERE);
    await mkdir(nowhere, { recursive: true, mode: 0o700 });
    const path = join(nowhere, tenant);
    if (from !== path) await rename(from, path);
    return path;
  }

  /** Searched for, since a link that was never renewed, after a crash between two steps, may lead to where it was. */
  async #whereabouts(tenant: string): Promise<string | undefined> {
    const plain = this.pathOf(tenant);
    // As an earlier version has it.
    if ((await lstat(plain).catch(() => undefined))?.isDirectory()) return plain;
    const on = join(this.#directory, SHARDS);
    for (const shard of await readdir(on).catch(() => [])) {
      const candidate = join(on, shard, tenant);
      if ((await lstat(candidate).catch(() => undefined))?.isDirectory()) return candidate;
    }
    return undefined;
  }
}

/**
 * Once for each tenant, as a shard of an earlier version wrote for its own user alone. The top comes last: by it the next start sees
 * that the rest has been done.
 */
async function shareTree(directory: string, group: number): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await shareTree(path, group);
    else {
      await lchown(path, 0, group);
      if (entry.isFile()) await chmod(path, 0o660);
    }
  }
  await lchown(directory, 0, group);
  // What is made in it belongs to the group too.
  await chmod(directory, 0o2770);
}
