import { z } from "zod";

const labelName = z.string().regex(/^[a-zA-Z_][a-zA-Z0-9_]{0,63}$/, "a label's name such as cluster_id");

/** Where plots come from, besides the controller's own history; docs/metrics.md, *Plots*. */
export const HistoryConfigSchema = z.strictObject({
  /** A Prometheus, or what answers as one, that scrapes the cluster. */
  prometheus: z
    .strictObject({
      url: z
        .url({ protocol: /^https?$/ })
        .refine((text) => noCredentials(text), { error: "an address without a name and password; see tokenFile" }),
      /** What tells this cluster's series from others'. */
      labels: z.record(labelName, z.string().max(200)).default({}),
      /** A file whose first line is sent as the bearer token. */
      tokenFile: z.string().min(1).optional(),
    })
    .optional(),
});
export type PrometheusConfig = NonNullable<z.infer<typeof HistoryConfigSchema>["prometheus"]>;

function noCredentials(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { username, password } = new URL(text);
  return username === "" && password === "";
}
