import type { ErrorCode } from "../errors.ts";
import type { Explained } from "./entry.ts";

export const API_CODES = {
  InvalidInput: {
    means: "A name, a value or the body of the request is not allowed; the message says which, and what is.",
    todo: "Correct it, and send the request again.",
    also: ["tenant"],
  },
  InvalidConfig: {
    means:
      "A configuration cannot be used: a tenant's settings for homeserver.yaml, or those of the cluster. The message names the place.",
    todo: "Correct it there. A tenant that runs goes on with its previous configuration; `tenant update --revert-config` takes the change back.",
    runbook: "SynapseShardsTenantFailed",
    also: ["tenant", "control"],
  },
  NotFound: {
    means: "There is no such tenant, shard, backup, token or call.",
    todo: "Check the name: `tenant list`, `shard list`, `tenant backups`, `token list`.",
    also: ["tenant", "control"],
  },
  AlreadyExists: {
    means:
      "The name, server name or database is taken, perhaps by a deleted tenant whose data is still kept. The message says by whom.",
    todo: "Choose another one; or have the deleted tenant back with `tenant undelete`, or remove its data with `tenant purge`.",
  },
  Conflict: {
    means: "The request does not fit the present state, or the object has changed meanwhile.",
    todo: "Read the message: try again, or do first what it names.",
    also: ["tenant"],
  },
  NoPlace: {
    means: "No shard can take the tenants that would have to be moved; nothing was begun.",
    todo: "Raise `maxTenantsPerShard` or `maxShardsPerSynapseImageTag`, name another shard, or remove what is not needed.",
    runbook: "SynapseShardsFull",
  },
  SchemaTooNew: {
    means: "The database was brought to a schema that this Synapse release cannot read.",
    todo: "Run a newer release, or restore a backup from before the upgrade. The tenant stays on its release until then.",
    runbook: "SynapseShardsMoveFailing",
    also: ["tenant"],
  },
  UnknownRelease: {
    means: "There is no such release of Synapse.",
    todo: "Correct the release; the message names the nearest ones.",
    also: ["tenant", "shard"],
  },
  UnsupportedRelease: {
    means: "Shards are not tested with this release of Synapse.",
    todo: "Use a supported release, or allow this one in `allowUntestedReleases`.",
    also: ["tenant", "shard", "control"],
  },
  Unauthorized: {
    means:
      "The token is missing or wrong; or a database, a backup target or Kubernetes refuses the credentials it is given.",
    todo: "Check the token (`--token-file`, the context), or the credentials of what the message names.",
    also: ["tenant", "shard", "control"],
  },
  Forbidden: {
    means: "The token is valid, but its role does not allow this call.",
    todo: "Use a token of the role that the message names; an admin makes one with `token create`.",
  },
  NoGateway: {
    means: "No gateway is connected to the controller. One that still runs routes by what it knew last.",
    todo: "Look at the gateway's log.",
    runbook: "SynapseShardsGatewayDown",
  },
  Platform: {
    means: "Something is wrong with the controller's machine or its settings; the message says what.",
    todo: "Change it there.",
  },
  RateLimited: {
    means:
      "Somebody at this address tried to sign in to the console more than ten times within a minute; or a tenant admin asks too often for a backup or the check of a configuration.",
    todo: "Wait as long as the message says. To sign in, the token is in the file that `data/cluster.json` names, or an admin makes one.",
  },
  Unavailable: {
    means:
      "Something that is needed does not answer now: a database, a shard, the backup target, Kubernetes, or the leading controller.",
    todo: "Try again. If it lasts, check what the message names; a tenant or shard in this state is retried automatically.",
    runbook: "SynapseShardsTenantPendingTooLong",
    also: ["tenant", "shard"],
  },
  Timeout: {
    means: "It was not done in the time that it may take. It may still be done later.",
    todo: "Look at `tenant describe` or `shard describe` before you try again.",
    also: ["tenant", "shard"],
  },
  Environment: {
    means: "Something of the machine or the installation is missing or broken: a program, a file, a key.",
    todo: "Put right what the message names.",
    also: ["tenant", "shard"],
  },
  TooLarge: {
    means: "The request's body or path is larger than the API accepts.",
    todo: "Send less: a body may have 1 MiB.",
  },
  UnsupportedMediaType: {
    means: "The request's body is not JSON.",
    todo: "Send it with `Content-Type: application/json`.",
  },
  InternalError: {
    means: "The controller met an error that it does not expect: a bug.",
    todo: "Find the id of the message in the controller's log, and report it.",
    runbook: "SynapseShardsControllerErrors",
  },
} as const satisfies Record<ErrorCode, Explained> & Record<string, Explained>;
