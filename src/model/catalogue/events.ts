import type { Explained } from "./entry.ts";

/** What is told of tenants. */
const OF_TENANTS = {
  Created: { means: "A tenant was created." },
  Imported: { means: "An existing Synapse became a tenant." },
  Assigned: { means: "A tenant got a place on a shard." },
  Started: { means: "A tenant runs." },
  Moving: { means: "A move of a tenant begins; the message says why." },
  Moved: { means: "A tenant runs on another shard." },
  Restarted: { means: "A tenant was restarted on its shard, with another configuration or a restored database." },
  MoveRolledBack: {
    means:
      "A tenant could not be started on the target shard, because of itself or its release. It runs as before where that is possible.",
    todo: "Correct what the message names; the move is retried at growing intervals.",
    runbook: "SynapseShardsMoveFailing",
  },
  MoveRefused: {
    means: "A move was not begun, because it would not have worked. The tenant was not stopped.",
    todo: "Correct what the message names.",
    runbook: "SynapseShardsMoveFailing",
  },
  MoveInterrupted: {
    means:
      "A move could not be finished, because something other than the tenant failed: a shard, a database server, the store. It is retried.",
    todo: "If it repeats, check what the message names.",
    runbook: "SynapseShardsMoveStuck",
  },
  Migrated: { means: "A tenant went over between a shard and a dedicated Synapse." },
  FellAsleep: { means: "A tenant was put to sleep." },
  StaysAwake: { means: "A tenant was to fall asleep, and stays awake; the message says why." },
  Woke: { means: "A tenant was woken, and runs." },
  PreparedAsleep: { means: "The database of a tenant that sleeps was brought to another release." },
  Suspended: { means: "A tenant was suspended: it runs nowhere, and its data and keys stay." },
  Resumed: { means: "A tenant is no longer suspended." },
  AdminAccessOpened: {
    means: "A tenant was opened to its own administrators, who reach Synapse's admin API with an admin UI.",
  },
  AdminAccessClosed: { means: "A tenant was closed to its own administrators." },
  AdminSessionOpened: {
    means: "Somebody was signed in to a tenant's admin UI as one of its administrators; the audit log has who.",
  },
  AdminSessionsEnded: {
    means: "Sessions that were opened for people at a tenant's admin UI were ended, as the tenant was closed.",
  },
  QuarantineLifted: { means: "A tenant's quarantine was lifted; it may share a shard again." },
  CpuThrottled: {
    means: "A tenant took more than its CPU budget; gateways let only part of its requests through.",
    todo: "If it lasts, raise its budget (`cpuBudget`), or make it dedicated.",
    runbook: "SynapseShardsShardOverloaded",
  },
  CpuThrottleLifted: { means: "A tenant is no longer throttled." },
  CpuBudgetExceeded: {
    means: "A tenant was throttled for long. It gets a shard without other tenants if there is room.",
    todo: "Raise its budget (`cpuBudget`), or make it dedicated.",
    runbook: "SynapseShardsShardOverloaded",
    also: ["move"],
  },
  CpuBudgetKept: { means: "A tenant has been calm for long, and may share a shard again." },
  QuotaReached: {
    means: "A tenant has as much as it may have of what the message names; what would add to it is refused.",
    todo: "Raise its quota, or have it remove something; docs/quotas.md.",
  },
  QuotaNear: {
    means: "A tenant is above its soft limit of what the message names.",
    todo: "Raise its quota before it is reached; docs/quotas.md.",
  },
  QuotaKept: { means: "A tenant is below its limit again." },
  CertificateIssued: { means: "A certificate was issued or renewed." },
  CertificateFailed: {
    means: "There is no new certificate for a name; the message says why. It is tried again at growing intervals.",
    todo: "Correct what the message names: usually DNS, or port 80 of the gateway.",
  },
  CertificateEndsSoon: {
    means: "A certificate ends soon, and has not been renewed yet.",
    todo: "The message says what keeps it from being renewed.",
    runbook: "SynapseShardsCertificateEndsSoon",
  },
  WasAway: { means: "A tenant was away for a while, and tells other servers that it is back." },
  Deleted: { means: "A tenant was deleted. Its data is kept for a time, unless it was to be removed at once." },
  Undeleted: { means: "A deleted tenant was brought back." },
  PurgeDue: {
    means: "The time for which a deleted tenant is kept is over; its data is about to be removed.",
    todo: "If it is still needed: `tenant undelete`, now.",
  },
  Purged: { means: "What was kept of a deleted tenant was removed; `tenant purges` has the proof." },
  DatabaseKept: { means: "A tenant continues with the database that was kept of an earlier tenant of its name." },
  KeysRestored: { means: "A tenant has the keys again that were kept beside its database." },
  BackupFailed: {
    means: "A tenant could not be backed up. The schedule tries again.",
    todo: "The message says why: the backup target, the database, or space.",
  },
  BackupsMissed: {
    means: "Backups of the schedule cannot be made for half an hour: the backup target does not say which are there.",
    todo: "The message says why: usually the target is away, or refuses the credentials.",
  },
  MediaNotBackedUp: {
    means:
      "A backup has the tenant's database, configuration and keys, but not its media, or not all: they are in no bucket, or the bucket cannot be read. The newest backup with all media is kept.",
    todo: "The message says why: usually the bucket's credentials, or `tenantPolicy.allowedDestinations`.",
  },
  BackupsResumed: { means: "Backups of the schedule are made again." },
  BackupDamaged: {
    means: "A backup cannot be restored: files are missing or changed.",
    todo: "Make another one with `tenant backup`, and check the backup target.",
  },
  Exported: { means: "A tenant was exported into an archive, with its keys." },
  BackupLogLate: {
    means:
      "The log of the databases does not get into the backup target in time: if the machine were lost now, more than the last minutes would be.",
    todo: "The message says why: the backup target, the database server, or space. `backup moments` shows how far it is.",
  },
  BackupLogCaughtUp: { means: "The log of the databases is in the backup target again." },
  BackupLogGap: {
    means:
      "The target was away for so long that the database server gave up its log: moments between then and the copy of the server that is made now cannot be had.",
    todo: "Nothing, if the target is back. A larger `backups.pointInTime.maxWaitingMiB` bridges more.",
  },
  BackupBaseFailed: {
    means:
      "The database server could not be copied into the backup target. Moments are still kept, from the copy before.",
    todo: "The message says why. It is tried again.",
  },
  BackupsRemoved: { means: "Backups that are older than the retention were removed." },
  InspectionMade: { means: "An earlier state of a tenant can be looked at beside it; `tenant inspect` shows it." },
  Restored: { means: "A tenant was restored from a backup.", also: ["move"] },
  DatabaseMoved: {
    means: "A tenant's database was moved to another server, and the tenant runs with it.",
    also: ["move"],
  },
  DatabaseCopied: {
    means: "A tenant's database was copied to another server while the tenant ran; the tenant restarts with the copy.",
  },
  DatabaseParked: {
    means:
      "A tenant's database is copied to another server while the tenant is parked, as it could not be copied while it runs. The message says why.",
  },
  DatabaseNotMoved: {
    means:
      "A tenant's database could not be moved to another server. Nothing is lost: the tenant goes on with it where it was.",
    todo: "The message says why; ask again once that is over.",
  },
  NotRestored: {
    means:
      "A restore found no copy where the tenant's database is, or could not bring the backup into the database that the tenant brings along. Nothing is lost: the tenant goes on with the database that it has.",
    todo: "The message says why; restore it again once that is over.",
  },
  Renamed: { means: "A tenant has another name. Its server name, and what its data are named by, stay as they were." },
  NotRenamed: {
    means: "A tenant keeps its name: it could not be stopped for the change, or the name was taken meanwhile.",
    todo: "The message says why. One that runs and cannot be stopped can be suspended, renamed and resumed.",
  },
  RestoreUndone: { means: "The last restore was taken back: the tenant runs with the database from before." },
} as const satisfies Record<string, Explained>;

/** What is told of shards and the fleet. */
const OF_OTHERS = {
  ShardCreated: { means: "A shard is made; the message says why." },
  ShardReady: { means: "A shard takes tenants." },
  ShardStopped: { means: "A shard was stopped and removed, as it is not needed." },
  ShardRestarted: {
    means: "A shard is another process than before; its tenants are started again.",
    todo: "If nobody restarted it, `shard logs` says why it ended.",
    runbook: "SynapseShardsShardCrashLooping",
  },
  ShardCrashed: {
    means: "A shard's process ended without being asked to. It is started again.",
    todo: "`shard logs` says why.",
    runbook: "SynapseShardsShardCrashLooping",
  },
  ShardLost: {
    means: "A shard does not answer; its tenants are started elsewhere.",
    todo: "Look for the cause in `shard logs`, and for an overloaded machine or node.",
    runbook: "SynapseShardsShardDown",
    also: ["move"],
  },
  ShardStalled: {
    means:
      "One tenant's code held up a whole shard, which was ended and started again. After the second time the tenant is quarantined.",
    todo: "The message names the place in the code: usually a module or a pattern of the tenant.",
    runbook: "SynapseShardsTenantQuarantined",
  },
  ShardMemoryHigh: {
    means: "A shard is near its memory limit; the message names the tenant that probably takes most.",
    todo: "Raise the limit, lower `maxTenantsPerShard`, or move that tenant.",
    runbook: "SynapseShardsShardOverloaded",
  },
  TenantsKept: { means: "A shard keeps its tenants though it takes much, or could be given up; the message says why." },
  DrainRequested: { means: "Somebody asked for a shard to be drained." },
  Draining: { means: "A shard is drained to be given up: the others have room for its tenants." },
  DrainCancelled: { means: "A drain was called off, because its places are needed." },
  Stopping: { means: "A shard is stopped, because it is empty." },
  NodeMaintenance: { means: "A shard is drained, because its node is cordoned." },
  RolloutStarted: { means: "A rollout of a release begins." },
  RolloutWave: { means: "A rollout has come to its next wave." },
  RolloutDone: { means: "A rollout has ended." },
  RolloutPaused: { means: "A rollout is paused, by its owner or for a maintenance window that cannot be read." },
  RolloutWaitingForWindow: { means: "A rollout waits for the next maintenance window." },
  RolloutHalted: {
    means: "A rollout has stopped, because too many tenants failed with the new release.",
    todo: "Find out why they failed; then change the fleet's specification.",
    runbook: "SynapseShardsRolloutHalted",
  },
  RolloutRollingBack: {
    means: "Too many tenants failed with the new release; those that were moved go back.",
    todo: "Find out why they failed.",
    runbook: "SynapseShardsRolloutHalted",
  },
  RolloutRolledBack: {
    means: "Every tenant is back on the previous release.",
    todo: "Find out why tenants failed; then change the fleet's specification.",
    runbook: "SynapseShardsRolloutHalted",
  },
} as const satisfies Record<string, Explained>;

export const EVENT_REASONS = { ...OF_TENANTS, ...OF_OTHERS } as const;
