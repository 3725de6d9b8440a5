import { z } from "zod";
import { NetworkSchema } from "./networks.ts";

/** The most networks of one list: each request of an administrator is compared with all of them. */
const MOST_NETWORKS = 100;
const MOST_ORIGINS = 100;

const networks = () => z.array(NetworkSchema).max(MOST_NETWORKS);

/** That a tenant's own administrators may come in; docs/admin-access.md. */
export const AdminAccessSchema = z.strictObject({
  allowedNetworks: networks().default([]).describe("Where they may come from: addresses and networks; none: anywhere."),
});
export type AdminAccess = z.infer<typeof AdminAccessSchema>;

/** The entrance for them, beside the one for everybody; a setting of the gateway. */
export const AdminAccessConfigSchema = z
  .strictObject({
    host: z.string().default("127.0.0.1"),
    port: z.int().min(0).max(65535).default(8449),
    /** With the certificates that clients get. false: for a proxy before it. */
    tls: z.boolean().default(true),
    /** The port that administrators have, where a proxy is before it, which then speaks https. */
    publicPort: z.int().min(1).max(65535).optional(),
    /** Networks beyond which no tenant's own list goes; none: any. */
    allowedNetworks: networks().default([]),
    /** Whether tenant admins may open and close it for their tenants. */
    tenantAdmins: z.boolean().default(false),
    /** An admin UI that takes a homeserver's address as `?server=`, such as Ketesa: links lead there, and its pages may call. */
    ui: z.url({ protocol: /^https?$/ }).optional(),
    /** Further origins whose pages may call. */
    origins: z
      .array(
        z.string().refine((text) => URL.canParse(text) && new URL(text).origin === text, {
          error: "an origin such as https://admin.example, without a path",
        }),
      )
      .max(MOST_ORIGINS)
      .default([]),
  })
  .optional();
export type AdminAccessConfig = NonNullable<z.infer<typeof AdminAccessConfigSchema>>;

/** Of the pages that may call. */
export function adminOriginsOf({ ui, origins }: Pick<AdminAccessConfig, "ui" | "origins">): string[] {
  return [...new Set([...(ui === undefined ? [] : [new URL(ui).origin]), ...origins])];
}

export interface AdminAccessView {
  open: boolean;
  allowedNetworks: string[];
  /** Where an admin UI finds the homeserver; absent where the cluster has no entrance for administrators. */
  address?: string;
  /** The UI, with that address filled in. */
  ui?: string;
  /** Whether tenant admins may open and close it. */
  tenantAdmins: boolean;
}

/** A session that was opened for somebody at the admin UI, in an administrator's name. */
export interface AdminSession {
  userId: string;
  /** It is nowhere else. */
  token: string;
  expiresAt: string;
  /** Whether the tenant slept, and was woken for it. */
  woken: boolean;
  address: string;
  ui?: string;
}

/** @param url the tenant's own, as clients have it @param port that the gateway listens at */
export function adminAccessView(
  access: AdminAccess | undefined,
  entrance: (AdminAccessConfig & { listensAt: number }) | undefined,
  url: string,
): AdminAccessView {
  const open = access !== undefined && entrance !== undefined;
  const view = { open, allowedNetworks: access?.allowedNetworks ?? [], tenantAdmins: entrance?.tenantAdmins ?? false };
  if (!entrance) return view;
  const { tls, publicPort, listensAt } = entrance;
  const at = new URL(url);
  const scheme = tls || publicPort !== undefined ? "https" : "http";
  const address = new URL(`${scheme}://${at.hostname}:${publicPort ?? listensAt}`).origin;
  if (entrance.ui === undefined) return { ...view, address };
  const ui = new URL(entrance.ui);
  ui.searchParams.set("server", address);
  return { ...view, address, ui: ui.href };
}
