import type { AdminLogin } from "../../src/database/connection.ts";
import { tenantDatabaseName } from "../../src/database/names.ts";
import type { Tenant } from "../../src/model/tenant.ts";
import { type TenantSecretData, newTenantSecrets } from "../../src/model/tenant-secrets.ts";
import type { Assignment } from "../../src/ports/shard-control.ts";
import { baseHomeserverConfig } from "../../src/model/homeserver-config.ts";
import { policyFor, TenantPolicySchema } from "../../src/model/tenant-policy.ts";

/** Limits are for people, and fixtures are made quicker. */
const ALLOWED_OPTIONS = ["rc_message", "rc_room_creation", "rc_joins", "rc_invites"];

/** A tenant as the controller would hand it to a shard. */
export class BenchTenant {
  readonly name: string;
  readonly serverName: string;
  readonly secrets: TenantSecretData;
  readonly database: { host: string; port: number; name: string; user: string };
  readonly mediaPath: string;
  /** Its own YAML; empty. */
  overrides = "";
  #epoch = 0;
  #allowed = ALLOWED_OPTIONS;

  constructor(name: string, server: AdminLogin, mediaPath: string) {
    this.name = name;
    this.serverName = `${name}.example`;
    this.secrets = newTenantSecrets(this.serverName);
    const database = tenantDatabaseName(name);
    this.database = { host: server.host, port: server.port, name: database, user: database };
    this.mediaPath = mediaPath;
  }

  /** Options beyond those that fixtures need. */
  allow(options: string[]): void {
    this.#allowed = [...new Set([...this.#allowed, ...options])];
  }

  /** With a higher epoch for each call, as each start has. */
  assignment(): Assignment {
    this.#epoch += 1;
    const policy = policyFor(TenantPolicySchema.parse({ allowedOptions: this.#allowed }), this.name);
    const base = baseHomeserverConfig({ spec: { serverName: this.serverName } } as Tenant, this.secrets, {
      publicBaseUrl: `http://${this.serverName}/`,
      database: this.database,
      mediaPath: this.mediaPath,
      federationCaFiles: [],
      allowLocalFederation: false,
      policy,
    });
    return {
      serverName: this.serverName,
      epoch: this.#epoch,
      base,
      overrides: this.overrides,
      signingKey: this.secrets.signingKey,
      policy,
    };
  }
}
