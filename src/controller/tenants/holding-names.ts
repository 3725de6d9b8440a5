import { reservation } from "../../model/deleted-tenant.ts";
import { UserError } from "../../model/errors.ts";
import { hostOf } from "../../model/names.ts";
import { storageField } from "../../model/storage-name.ts";
import { newTenantStatus, type TenantSpec } from "../../model/tenant.ts";
import type { ControllerContext, Deletions } from "../context.ts";
import type { TenantNames } from "./reserved-names.ts";
import { ownerOf, refuseRenamedTo } from "./storage-names.ts";

/** A tenant that is to be made. */
export interface ToBeMade {
  name: string;
  spec: TenantSpec;
  /** The work that makes it, in words. */
  by: string;
  /** Finds what its data are to be named by. */
  storage(): Promise<string>;
}

export interface HeldNames {
  names: TenantNames;
  /** Looks once more, before the first of its data are put in their place. @throws UserError Conflict, AlreadyExists */
  confirm(): Promise<void>;
}

/** Has the names of a tenant for as long as the work takes that makes it. @throws UserError Conflict, AlreadyExists where one of them is not free */
export async function holdNames<T>(
  context: ControllerContext,
  { name, spec, by, storage }: ToBeMade,
  work: (held: HeldNames) => Promise<T>,
): Promise<T> {
  const { deletions } = context;
  if (!deletions) throw new UserError("Conflict", "this platform makes tenants of what it creates alone");
  const { serverName } = spec;
  const names = await deletions.lock.run(async () => {
    const found: TenantNames = { name, serverName, storage: await storage() };
    await refuseTaken(context, deletions, found, spec);
    deletions.reserved.add(found, by);
    return found;
  });
  const confirm = () => deletions.lock.run(() => refuseTaken(context, deletions, names, spec));
  try {
    return await work({ names, confirm });
  } finally {
    deletions.reserved.remove(names);
  }
}

async function refuseTaken(
  context: ControllerContext,
  { records, reserved }: Deletions,
  names: TenantNames,
  spec: TenantSpec,
): Promise<void> {
  const { store, reader, claims } = context;
  const { name, serverName, storage } = names;
  if (await store.get("Tenant", name)) throw new UserError("AlreadyExists", `there is a tenant named ${name} already`);
  refuseRenamedTo(context, name);
  reserved.refuse(names, names);
  const host = hostOf(serverName);
  for (const other of reader.values("Tenant"))
    if (hostOf(other.spec.serverName) === host)
      throw new UserError(
        "AlreadyExists",
        `tenant ${other.metadata.name} has the server name ${other.spec.serverName}; two homeservers of one name would break both`,
      );
  const metadata = { name, creationTimestamp: "", resourceVersion: "", generation: 0 };
  const rival = claims.conflictWhenAsked({
    metadata,
    spec,
    status: { ...newTenantStatus(), ...storageField(storage, name) },
  });
  if (rival) throw new UserError("AlreadyExists", rival.message);
  for (const record of await records.list()) {
    const kept = reservation(record, { name, serverName });
    if (kept !== undefined) throw new UserError("AlreadyExists", kept);
  }
  const owner = await ownerOf(context, storage);
  // What is kept of a deleted one of the same names is its own.
  if (owner !== undefined && owner !== name)
    throw new UserError("Conflict", `data of tenant ${owner} is named ${storage}; try again`);
}
