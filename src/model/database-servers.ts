import { z } from "zod";

/** The server that the cluster runs itself. */
export const OWN_SERVER = "main";

const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** What decides how many tenants' databases a server gets. */
export interface ServerShare {
  name: string;
  /** Of new databases it gets a part in proportion; 0: none. */
  weight: number;
  /** At most so many, with those of deleted tenants that are kept. */
  maxDatabases?: number | undefined;
}

export const DatabaseServersSchema = z
  .array(
    z
      .strictObject({
        name: z.string().regex(NAME, `a name of a-z, 0-9 and "-" such as ${OWN_SERVER} or db-2`),
        host: z
          .string()
          .regex(/^[^\s,/@]+$/, "a host name or an address")
          .optional(),
        port: z.int().min(1).max(65535).default(5432),
        /** With the rights to make databases and roles. */
        user: z.string().min(1).default("postgres"),
        passwordFile: z.string().min(1).optional(),
        /** The user's own, to work from. */
        database: z.string().min(1).default("postgres"),
        /** Shards have no authorities to verify a server's certificate with. */
        sslMode: z.enum(["disable", "prefer", "require"]).default("prefer"),
        weight: z.number().min(0).max(1000).default(1),
        maxDatabases: z.int().min(1).max(1_000_000).optional(),
      })
      .superRefine(({ name, host, passwordFile }, context) => {
        const refuse = (key: string, message: string) => context.addIssue({ code: "custom", path: [key], message });
        if (name === OWN_SERVER && host !== undefined)
          refuse("host", `${OWN_SERVER} is the server that the cluster runs itself: give the other one another name`);
        if (name !== OWN_SERVER && host === undefined) refuse("host", "is missing");
        if (name !== OWN_SERVER && passwordFile === undefined)
          refuse("passwordFile", "is missing: the file with the password of the user");
      }),
  )
  .max(100)
  .refine((servers) => new Set(servers.map(({ name }) => name)).size === servers.length, {
    error: "a server is named twice",
  })
  .refine((servers) => !servers.some(({ name }) => name === OWN_SERVER) || servers.some(({ weight }) => weight > 0), {
    error: "a server has to take new databases: give one a weight above 0",
  });
export type DatabaseServerConfig = z.infer<typeof DatabaseServersSchema>[number];

export interface ServerLoad extends ServerShare {
  /** How many it has now. */
  databases: number;
}

/**
 * The server for one more database: the one that has the fewest for its weight with it, of those that may have one more; the first of several.
 * @returns undefined where none may
 */
export function chooseServer(servers: readonly ServerLoad[]): string | undefined {
  let best: { name: string; share: number } | undefined;
  for (const { name, weight, maxDatabases = Number.POSITIVE_INFINITY, databases } of servers) {
    if (weight === 0 || databases >= maxDatabases) continue;
    const share = (databases + 1) / weight;
    if (!best || share < best.share) best = { name, share };
  }
  return best?.name;
}

/** Why none may have one more, in a sentence. */
export function fullServersWords(servers: readonly ServerLoad[]): string {
  const words = servers.map(({ name, weight, maxDatabases, databases }) =>
    weight === 0
      ? `${name} takes none (weight 0)`
      : `${name} has ${databases}${maxDatabases === undefined ? "" : ` of ${maxDatabases}`}`,
  );
  return `no database server has a place for another database: ${words.join(", ")}; raise maxDatabases, or add a server to databaseServers`;
}
