import { ROLES, ROLE_NAMES, type Role } from "../../../../src/model/role.ts";
import { sentence } from "../../api/client.ts";

/** What somebody may do, and of a tenant admin, with which tenants. */
export function GrantFields({
  role,
  tenants,
  setRole,
  setTenants,
}: {
  role: Role;
  tenants: string;
  setRole: (role: Role) => void;
  setTenants: (tenants: string) => void;
}) {
  return (
    <>
      <label>
        <span>Role</span>
        <select
          value={role}
          onChange={({ target }) => setRole(ROLE_NAMES.find((known) => known === target.value) ?? "viewer")}
        >
          {ROLE_NAMES.map((known) => (
            <option key={known}>{known}</option>
          ))}
        </select>
        <span className="hint">{sentence(ROLES[role])}</span>
      </label>
      {role === "tenant-admin" && (
        <label>
          <span>Tenants with the labels</span>
          <input
            value={tenants}
            required
            placeholder="customer=acme"
            autoComplete="off"
            onChange={({ target }) => setTenants(target.value)}
          />
        </label>
      )}
    </>
  );
}
