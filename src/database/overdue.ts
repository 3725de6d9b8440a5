import { asAdmin, DEFAULT_BOUNDS, type AdminLogin, type Bounds } from "./connection.ts";
import { TENANT_PREFIXES } from "./names.ts";

/** Above `statement_timeout` of tenants' roles, which ends what is honest before this. */
const STATEMENT_SECONDS = 65 * 60;
/** Background work of Synapse is in short transactions; a backup is an administrator's. */
const TRANSACTION_SECONDS = 2 * 3600;

export interface Longest {
  statementSeconds: number;
  transactionSeconds: number;
}

/**
 * Ends connections of tenants' roles to their own databases that have been at one statement, or in one transaction, for too long. A role can change
 * `statement_timeout` for itself, but not this: it is done from outside. An open transaction keeps the server from cleaning up behind it.
 * Roles that are not ours to act for, as those of another installation on the server, are left alone.
 * @returns the databases, once for each connection @throws UserError
 */
export function endOverdue(
  admin: AdminLogin,
  { statementSeconds, transactionSeconds }: Longest = {
    statementSeconds: STATEMENT_SECONDS,
    transactionSeconds: TRANSACTION_SECONDS,
  },
  bounds: Bounds = DEFAULT_BOUNDS,
): Promise<string[]> {
  return asAdmin(admin, bounds, async (client) => {
    // Not among the conditions, whose order is the server's to choose.
    const { rows } = await client.query<{ name: string; ended: boolean }>(
      `SELECT datname AS name, pg_terminate_backend(pid) AS ended FROM pg_stat_activity
       WHERE datname = usename AND (starts_with(datname, $3) OR starts_with(datname, $4)) AND pid <> pg_backend_pid()
         AND pg_has_role(usesysid, 'USAGE')
         AND ((state = 'active' AND now() - query_start > make_interval(secs => $1))
           OR now() - xact_start > make_interval(secs => $2))`,
      [statementSeconds, transactionSeconds, ...TENANT_PREFIXES],
    );
    return rows.filter(({ ended }) => ended).map(({ name }) => name);
  });
}
