import type { Explained } from "./entry.ts";

/** Why a tenant does not run, or not as its specification says. */
export const TENANT_REASONS = {
  MaxShardsReached: {
    means:
      "No shard of the tenant's release has a free place (for a quarantined or dedicated tenant: none is empty), and as many shards as allowed exist. It is placed as soon as there is room.",
    todo: "Raise `maxShardsPerSynapseImageTag` or `maxTenantsPerShard`, let tenants sleep, or delete tenants that nobody uses. For a tenant that needs a shard of its own: raise `maxShardsPerSynapseImageTag`, or drain a shard.",
    runbook: "SynapseShardsFull",
  },
  ShardFailed: {
    means:
      "The shards of the tenant's release cannot be started, and another one would fare no better, so none is made.",
    todo: "Find the cause in `shard describe` of the shard that the message names.",
    runbook: "SynapseShardsShardDown",
  },
  ShardNotReady: {
    means: "The tenant's shard is not ready, or does not answer. The tenant is started when it is.",
    todo: "If it lasts, `shard describe` says what the shard waits for.",
    runbook: "SynapseShardsShardDown",
  },
  InstallingRelease: {
    means: "The tenant's Synapse release is being installed, which takes a minute or two.",
  },
  NoRelease: {
    means: "The tenant names no release, and there is no fleet to follow.",
    todo: "Set the tenant's image tag, or the fleet's.",
  },
  Pending: {
    means: "The change, or the place of the tenant, is on its way, and nothing more is known yet.",
    also: ["condition"],
  },
  Asleep: {
    means: "The tenant sleeps; a change takes effect when it is woken.",
    also: ["condition"],
  },
  Waking: {
    means: "The tenant is being woken. Its requests wait at the gateway.",
  },
  UnreadableRoute: {
    means: "Said by a gateway in its 503 alone: it cannot read what the controller says of where the tenant is.",
    todo: "The gateway's log says what it cannot read. A gateway of an earlier version is to be upgraded; otherwise it is a bug.",
  },
  UpgradePending: {
    means: "The tenant runs, and waits for its move to another release.",
    todo: "If it lasts, look at the events: a maintenance window, other moves or a lack of places holds it up.",
    also: ["condition"],
  },
  DatabaseInTheMaking: {
    means:
      "The tenant's database is being made. The first tenant of a release waits a minute or two for the release's schema.",
  },
  ProvisioningFailed: {
    means: "The tenant's keys or database could not be made for an unexpected reason. It is retried.",
    todo: "The message and the controller's log say why.",
    runbook: "SynapseShardsTenantPendingTooLong",
  },
  DedicatedNotReady: {
    means:
      "The dedicated Synapse that is to serve the tenant does not answer yet. Until it does, the shard serves the tenant if it has it.",
    todo: "Look at the pod of the dedicated Synapse, and its log.",
    runbook: "SynapseShardsTenantPendingTooLong",
  },
  PlanMissing: {
    means: "The tenant has a plan that the configuration does not have, so that only quotas of its own hold.",
    todo: "Put the plan back into the configuration, or give the tenant another one.",
  },
  Quarantined: {
    means:
      "The tenant's code stopped a whole shard twice, or an operator quarantined it. It runs on a shard without other tenants, or waits for one.",
    todo: "Find the code, usually a module or a pattern, in `tenant describe`; then `tenant quarantine NAME --lift`.",
    runbook: "SynapseShardsTenantQuarantined",
  },
  KeysMissing: {
    means:
      "A database of an earlier tenant of this name is kept, but its signing key is not, or it has another server name.",
    todo: "Restore the store from a backup, create the tenant with the earlier server name, or delete it with `--purge`.",
    runbook: "SynapseShardsTenantFailed",
  },
  RestoreImpossible: {
    means: "The platform restores no databases, but the tenant is to start with a restored one.",
    todo: "Restore it with the platform's own means, as docs/backups.md says.",
  },
  DatabaseServersFull: {
    means: "No database server may have another database: each has as many as its `maxDatabases`, or a weight of 0.",
    todo: "Raise `maxDatabases`, or add a server to `databaseServers`; the tenant is made then.",
    runbook: "SynapseShardsTenantFailed",
  },
  DatabaseServerUnknown: {
    means: "The tenant's database is on a server that `databaseServers` in the configuration does not name any more.",
    todo: "Put the server back into the configuration; move its tenants' databases away before it is removed.",
    runbook: "SynapseShardsTenantFailed",
  },
  RecordTooLarge: {
    means:
      "The tenant is deleted, but what is to be kept of it, so that it can be had back, does not fit into a Secret of Kubernetes. It is stopped, and all of its data is there.",
    todo: "Shorten its configuration or annotations, move the configuration into a Secret, or set `reclaimPolicy: Delete`, as the message says.",
    also: ["event"],
  },
  SecretMissing: {
    means: "The Secret with the tenant's keys does not exist. A tenant that runs goes on with what it had.",
    todo: "Restore the Secret from a backup.",
    runbook: "SynapseShardsTenantSecretUnreadable",
    also: ["condition"],
  },
  SecretInvalid: {
    means: "The tenant's keys are there but cannot be used. A tenant that runs goes on with what it had.",
    todo: "Correct the Secret as the message says.",
    runbook: "SynapseShardsTenantSecretUnreadable",
  },
  ServerNameTaken: {
    means: "Another tenant has this server name.",
    todo: "Delete the one that is not wanted; a tenant's server name cannot be changed.",
    runbook: "SynapseShardsTenantFailed",
  },
  NameReserved: {
    means: "A deleted tenant, whose data is kept for its time, has this name or server name.",
    todo: "`tenant list --deleted` shows it: have it back (`tenant undelete`), remove its data (`tenant purge`), or choose another name.",
    runbook: "SynapseShardsTenantFailed",
  },
  HostTaken: {
    means: "Another tenant has one of the hosts of this one's server name, `public_baseurl` or `synapse_shards.hosts`.",
    todo: "Give one of them another host.",
    runbook: "SynapseShardsTenantFailed",
  },
  DatabaseTaken: {
    means: "Another tenant has this database, perhaps under another name.",
    todo: "Give each tenant a database of its own.",
    runbook: "SynapseShardsTenantFailed",
  },
  AssignmentTooLarge: {
    means:
      "The configurations of the shard's tenants together do not fit into a Kubernetes Secret (1 MiB, compressed).",
    todo: "Shorten the tenant's homeserver.yaml, or lower `maxTenantsPerShard`.",
  },
  UnknownCluster: {
    means: "The cluster that the SynapseTenant names is not in its namespace.",
    todo: "Correct `spec.clusterId`, or install the cluster.",
  },
  NamespaceNotAllowed: {
    means: "The namespace of the SynapseTenant may have no tenants of this cluster. What runs goes on.",
    todo: "Have an administrator set the label that the message names on the namespace.",
  },
  NameTooLong: {
    means: "The tenant's name in the cluster, its namespace and name together, is longer than 63 characters.",
    todo: "Give the SynapseTenant a shorter name.",
  },
  NameTaken: {
    means: "The tenant's name in the cluster, its namespace and name together, is another tenant's.",
    todo: "Give the SynapseTenant another name.",
  },
} as const satisfies Record<string, Explained>;

/** Of conditions on Kubernetes alone. */
export const CONDITION_REASONS = {
  AsSpecified: { means: "The tenant runs the release and the configuration that its specification asks for." },
  ConfigRefused: {
    means: "The tenant's configuration is refused; it goes on with the previous one.",
    todo: "Correct it as the message says, or take it back.",
    also: ["tenant"],
  },
  OnShard: { means: "The tenant has a place on a shard." },
  Dedicated: { means: "A dedicated Synapse serves the tenant." },
  Suspended: { means: "The tenant is suspended, and is placed again when it is resumed." },
  Read: { means: "The tenant's configuration and keys can be read from their Secrets." },
  Open: { means: "The tenant's own administrators may come in." },
  InvalidNetworks: {
    means: "The networks that the tenant's administrators may come from are wrong; nobody may come in.",
    todo: "Correct `spec.adminAccess.allowedNetworks` as the message says.",
  },
  NoEntrance: {
    means: "The tenant is to be open to its administrators, and the cluster has no entrance for them.",
    todo: "Set `gateway.adminAccess.enabled` in the values of the chart synapse-shards.",
  },
  OperatorsChoice: {
    means:
      "Something of the tenant is the operator's to say, and is not as its owner wrote it: what the tenant takes of the cluster (condition `Accepted`), or whether it is open to its administrators, and from where (condition `AdminAccess`).",
    todo: "Take what the message names out of the object, or ask the operator to change it; for `spec.adminAccess`, also to set `gateway.adminAccess.tenantAdmins`. To close the tenant, take `spec.adminAccess` out.",
  },
  SecretKeyMissing: {
    means: "A Secret that the tenant names lacks a key.",
    todo: "Add the key that the message names.",
    runbook: "SynapseShardsTenantSecretUnreadable",
  },
  SecretNotLabelled: {
    means: "A Secret that the tenant names is not labelled as that tenant's, and so is not read.",
    todo: "Set the label that the message names on the Secret.",
    runbook: "SynapseShardsTenantSecretUnreadable",
  },
  SecretForbidden: {
    means: "The namespace of the tenant's Secret does not let the controller read it.",
    todo: "Add a Role and a RoleBinding there for the controller.",
    runbook: "SynapseShardsTenantSecretUnreadable",
  },
  SecretUnreadable: {
    means: "A Secret of the tenant cannot be read for now. It is tried again.",
    todo: "If it lasts, check the Kubernetes API, and what the message says.",
    runbook: "SynapseShardsTenantSecretUnreadable",
  },
  SecretUnfit: {
    means: "What the Secrets hold does not make a configuration, for example as two parts set the same option.",
    todo: "Correct the Secret, or `secretRefs`, as the message says.",
    runbook: "SynapseShardsTenantSecretUnreadable",
  },
} as const satisfies Record<string, Explained>;
