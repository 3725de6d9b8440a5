import type { BackupManifest } from "../../../src/model/backup.ts";
import type { Sample } from "../../../src/model/history.ts";
import type { UsageMonth } from "../../../src/model/usage-month.ts";

const MINUTE = 60_000;

/** Of the last ten minutes, with one shard. */
export function someSamples(now = Date.now()): Sample[] {
  const end = Math.floor(now / MINUTE) * MINUTE;
  return Array.from({ length: 10 }, (_, index) => ({
    at: end - (10 - index) * MINUTE,
    count: 1,
    values: {
      running: 3 + index,
      asleep: 10 - index,
      onTheWay: 0,
      failed: index % 2,
      shards: 1,
      places: 25,
      placesTaken: 4 + index,
      load: 0.1 * index,
      busiest: 0.1 * index,
      memory: 300_000_000 + index * 1_000_000,
      moves: index % 3,
      movesFailed: 0,
      ...(index % 3 > 0 ? { blackout: 0.4 } : {}),
      wakes: 1,
      sleeps: 0,
      "shard/1.163.2-0/load": 0.1 * index,
      "shard/1.163.2-0/memory": 300_000_000,
    },
  }));
}

export function usageOf(tenant: string, month: string, requests: number): UsageMonth {
  return {
    tenant,
    serverName: `${tenant}.localhost`,
    month,
    requests,
    cpuSeconds: 12.5,
    users: 4,
    databaseBytes: 9_000_000,
    mediaBytes: 1_000_000,
    updatedAt: `${month}-02T00:00:00.000Z`,
  };
}

export function backupOf(tenant: string, id: string): BackupManifest {
  const stored = { file: "f", bytes: 9_000_000, sha256: "f00d" };
  return {
    format: 1,
    id,
    tenant,
    serverName: `${tenant}.localhost`,
    schemaRelease: "1.163.2",
    takenAt: "2026-11-26T02:00:00.000Z",
    finishedAt: "2026-11-26T02:00:05.000Z",
    database: stored,
    sealed: { ...stored, recipient: "age1test" },
    media: { ...stored, files: 0, totalBytes: 0, newFiles: 0, newBytes: 0 },
  } as unknown as BackupManifest;
}
