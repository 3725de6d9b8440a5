import { z } from "zod";
import { BackupsConfigSchema } from "../../../model/backup.ts";

/** As on one machine, but for moments, which are the database server's; and where backups are tried. */
export const KubernetesBackupsSchema = BackupsConfigSchema.omit({ pointInTime: true }).extend({
  scratch: z.strictObject({
    /** A volume of the pod's own. */
    directory: z.string().regex(/^\//),
    bytes: z.int().min(1024 ** 3),
  }),
});
export type KubernetesBackupsConfig = z.infer<typeof KubernetesBackupsSchema>;
