import type { Explained } from "./entry.ts";

/** Why a shard is not ready. */
export const SHARD_REASONS = {
  InstallingImage: { means: "The shard's Synapse release is being installed, which takes a minute or two." },
  ImageFailed: {
    means: "The shard's Synapse release cannot be installed, for an unexpected reason. It is retried.",
    todo: "The message and the controller's log say why.",
    runbook: "SynapseShardsShardDown",
  },
  ImageUnavailable: {
    means: "Kubernetes cannot get the shard's image.",
    todo: "Check the image tag, the registry and the pull secret.",
    runbook: "SynapseShardsShardDown",
  },
  Unschedulable: {
    means: "No node takes the shard's pod.",
    todo: "Add nodes or free resources; the message has the scheduler's words.",
    runbook: "SynapseShardsShardDown",
  },
  ContainerFailed: {
    means: "The shard's container cannot be made.",
    todo: "`kubectl describe pod` of the shard's pod has the cause, often a missing Secret or volume.",
    runbook: "SynapseShardsShardDown",
  },
  PodRefused: {
    means: "Kubernetes refuses to make the shard's pod: a quota, a policy or an admission webhook.",
    todo: "The message has its words; change the policy, or the chart's values.",
    runbook: "SynapseShardsShardDown",
  },
  Crashed: {
    means: "The shard's process ends soon after each start. It is started again, at growing intervals.",
    todo: "`shard logs` says why.",
    runbook: "SynapseShardsShardCrashLooping",
  },
  NotStarted: {
    means: "The shard's process did not come up in time. It was ended, and is started again.",
    todo: "`shard logs` and the message say what it was at; a machine that is overloaded is too slow for it.",
    runbook: "SynapseShardsShardDown",
  },
  NotRunning: {
    means: "The shard's process is on its way; the message says what it waits for.",
    todo: "If it lasts, see the message.",
    runbook: "SynapseShardsShardDown",
  },
  NoAnswer: {
    means:
      "The shard's process does not answer. Its tenants are started elsewhere; after a while the process is ended.",
    todo: "Look for the cause in `shard logs`, and for an overloaded machine or node.",
    runbook: "SynapseShardsShardDown",
  },
} as const satisfies Record<string, Explained>;

/** Why a shard that takes much keeps its tenants, and one that could be given up is kept. */
export const KEEP_REASONS = {
  BudgetSpent: {
    means: "As many tenants as allowed were moved for the load within an hour.",
    todo: "If shards stay hot, raise `balancing.movesPerHour`.",
  },
  CoolDown: { means: "A tenant was moved for the load a moment ago; the effect is awaited." },
  CpuNeeded: {
    means: "The shard could be given up for the number of its tenants, but not for the processor time they take.",
  },
  MoveUnderWay: { means: "A tenant is on its way to or from the shard, or as many moves as allowed are under way." },
  NoBetterPlace: {
    means: "No move of one tenant would make the hotter of two shards clearly cooler.",
    todo: "If the shard is too slow, allow more shards, or make its hottest tenant dedicated.",
    runbook: "SynapseShardsShardOverloaded",
  },
  NobodyMovable: {
    means: "Each of its tenants is pinned, placed there by its operator, or was moved recently.",
    todo: "If the shard is too slow, lift a pin or a placement.",
    runbook: "SynapseShardsShardOverloaded",
  },
  OutsideWindow: { means: "No maintenance window is open." },
  ShardComing: { means: "A shard that was made for the load has not come up yet." },
} as const satisfies Record<string, Explained>;

export const FLEET_REASONS = {
  TooManyFailures: {
    means:
      "As many tenants as allowed failed with the new release, or were moved back. The rollout has stopped, or goes back.",
    todo: "Find out why they failed; then change the fleet's specification.",
    runbook: "SynapseShardsRolloutHalted",
  },
  Paused: { means: "`spec.rollout.paused` is true.", todo: "Set it to false to go on." },
  WindowClosed: { means: "The rollout goes on when the next maintenance window opens." },
  InvalidWindow: {
    means: "A maintenance window of the fleet cannot be read, so the rollout is paused.",
    todo: "Correct `spec.rollout.windows` as the message says.",
  },
} as const satisfies Record<string, Explained>;
