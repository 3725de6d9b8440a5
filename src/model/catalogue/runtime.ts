import type { Explained } from "./entry.ts";

/** Answers of shards and preparers that become the reason of the tenant; docs/control-api.md. */
export const START_CODES = {
  OptionNotAllowed: {
    means: "The tenant's configuration sets an option that is not the tenant's, or a value beyond a bound.",
    todo: "Remove it; docs/configuration.md lists the options. An operator can allow more with the cluster's policy.",
    runbook: "SynapseShardsTenantFailed",
    also: ["tenant"],
  },
  SigningKeyInvalid: {
    means: "The tenant's signing key is empty, or not of the form `ed25519 NAME BASE64`.",
    todo: "Put the right key back from a backup. Other servers do not accept a new one at once.",
    runbook: "SynapseShardsTenantFailed",
    also: ["tenant"],
  },
  DatabaseAuthenticationFailed: {
    means: "The database server refuses the tenant's user or password.",
    todo: "Correct the user, the password, or pg_hba.conf.",
    runbook: "SynapseShardsTenantFailed",
    also: ["tenant"],
  },
  DatabaseUnreachable: {
    means: "The tenant's database does not answer. It is tried again.",
    todo: "Check the database server, and the network between it and the shards.",
    runbook: "SynapseShardsTenantFailed",
    also: ["tenant"],
  },
  DatabaseMissing: {
    means: "The tenant's database does not exist.",
    todo: "Restore it from a backup, or correct its name.",
    runbook: "SynapseShardsTenantFailed",
    also: ["tenant"],
  },
  DatabaseUnsuitable: {
    means:
      "The database cannot be used: a wrong encoding or locale, a lacking privilege, a schema that is too new, or another program that may write to it.",
    todo: "Correct what the message names.",
    runbook: "SynapseShardsTenantFailed",
    also: ["tenant"],
  },
  DatabaseFull: {
    means: "The disk of the database server is full. Tenants are tried again.",
    todo: "Free some space, or enlarge the disk.",
    runbook: "SynapseShardsTenantPendingTooLong",
    also: ["tenant"],
  },
  DatabaseOverloaded: {
    means: "The database server has no connection, memory or other resource left. Tenants are tried again.",
    todo: "Raise `max_connections` or its memory, or lower the connections of each tenant.",
    runbook: "SynapseShardsTenantPendingTooLong",
    also: ["tenant"],
  },
  DatabaseReadOnly: {
    means: "The database takes no writes: it is a standby, or read-only by its settings. Tenants are tried again.",
    todo: "Lead connections to the primary.",
    runbook: "SynapseShardsTenantPendingTooLong",
    also: ["tenant"],
  },
  PortInUse: {
    means: "A port for the tenant's listener is taken. It is tried again with another one.",
    todo: "If it repeats, see what else listens on the machine.",
    also: ["tenant"],
  },
  ModuleFailed: {
    means: "A Python module of the tenant cannot be loaded, or fails at the start.",
    todo: "Correct the module or its configuration; `tenant logs` has the trace.",
    runbook: "SynapseShardsTenantFailed",
    also: ["tenant"],
  },
  StartFailed: {
    means: "The tenant's Synapse failed at its start for a reason that has no other code.",
    todo: "`tenant logs` has the trace.",
    runbook: "SynapseShardsTenantFailed",
    also: ["tenant"],
  },
  Fenced: {
    means:
      "Another owner has the tenant's database, so that this shard does not serve it. The next attempt has a higher epoch.",
    todo: "If it repeats, look for a second cluster, or a Synapse outside, with the same database.",
    runbook: "SynapseShardsTenantPendingTooLong",
    also: ["tenant"],
  },
  StaleEpoch: {
    means: "The order to start a tenant is older than what runs; it is ignored.",
    also: ["tenant"],
  },
  AlreadyRunning: {
    means: "The shard runs the tenant, or its server name, already. It is stopped first.",
    also: ["tenant"],
  },
  Stalled: {
    means: "The tenant's code held up the whole shard. It is held back for half a minute while the others start.",
    todo: "The message names the place in the code: usually a module or a pattern of the tenant.",
    runbook: "SynapseShardsTenantQuarantined",
    also: ["tenant"],
  },
  ShuttingDown: {
    means: "The shard is being stopped, and takes nothing more.",
    also: ["tenant"],
  },
  TooManyPreparers: {
    means: "As many preparers as allowed are at work beside the shard. The controller tries again.",
    also: ["tenant"],
  },
  NotReady: {
    means: "A preparer got a command before it was ready, or at work. The controller tries again.",
    also: ["tenant"],
  },
  PreparerEnded: {
    means: "A preparer ended before it was done, for example as it lacked memory. The controller tries again.",
    todo: "If it repeats, the shard's log and the memory of the machine or pod tell more.",
    also: ["tenant"],
  },
  Internal: {
    means: "The shard failed to answer: a bug.",
    todo: "`shard logs` has the trace; report it.",
    also: ["tenant"],
  },
  Unexpected: {
    means: "The shard answered in a way that is not of its control API.",
    todo: "Check that what listens at the shard's address is the shard, and of a version that fits the controller's.",
    also: ["tenant"],
  },
} as const satisfies Record<string, Explained>;

/** Requests that are wrong in themselves: only other programs than the controller send such. */
export const CONTROL_CODES = {
  InvalidName: { means: "The tenant's name is not a DNS label.", todo: "Correct the request." },
  InvalidJson: { means: "The request's body is not a JSON object.", todo: "Correct the request." },
  InvalidArgument: {
    means: "An argument of the request is not allowed; the message says what is.",
    todo: "Correct the request.",
  },
  AppServiceNotFound: {
    means: "The tenant runs with no application service of that id.",
    todo: "`tenant appservice list` shows those that its configuration has; one that was added just now is there once the tenant runs with it (`tenant describe`).",
  },
  UserNotFound: {
    means: "The tenant has no user of that name.",
    todo: "`tenant users list` shows those that it has.",
  },
  UserRefused: {
    means:
      "The tenant's Synapse refuses to change the user: the account is deactivated, a module forbids it, or an authentication service keeps the accounts.",
    todo: "Do as the message says; an authentication service has tools of its own.",
  },
  MethodNotAllowed: { means: "The path does not take this method.", todo: "Correct the request." },
  BodyTooLarge: { means: "The request's body is larger than 1 MiB.", todo: "Send less." },
} as const satisfies Record<string, Explained>;
