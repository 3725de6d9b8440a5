import { useState, type ReactNode } from "react";
import { isLimited as isLimitedRole, ROLES, ROLE_NAMES, type Role } from "../../../../src/model/role.ts";
import { sentence } from "../../api/client.ts";
import { quoted } from "../../ui/command.tsx";

/** Somebody's name, what they may do, and of limited roles, with which tenants. */
export function useGrant(): {
  body: { name: string; role: Role; tenants?: string };
  /** As the command line has it. */
  words: string;
  fields: ReactNode;
} {
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("viewer");
  const [tenants, setTenants] = useState("");
  const isLimited = isLimitedRole(role);
  const limit = isLimited ? ` --tenants ${quoted(tenants || "customer=acme")}` : "";
  return {
    body: { name, role, ...(isLimited ? { tenants } : {}) },
    words: `${quoted(name || "NAME")} --role ${role}${limit}`,
    fields: (
      <>
        <label>
          <span>Name</span>
          <input value={name} required autoComplete="off" onChange={({ target }) => setName(target.value)} />
        </label>
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
        {isLimited && (
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
    ),
  };
}

export function GrantCell({ role, tenants }: { role: Role; tenants?: string | undefined }) {
  return (
    <td>
      {role} {tenants !== undefined && <code>{tenants}</code>}
    </td>
  );
}
