/** The samples of one level as an object of Kubernetes holds them: JSON that names each series once, compressed. Pure. */
import { gunzipSync, gzipSync } from "node:zlib";
import { z } from "zod";
import { rounded, type Sample } from "../../../model/history.ts";

const PackedSchema = z.object({
  format: z.literal(1),
  series: z.array(z.string()),
  samples: z.array(z.tuple([z.number(), z.number(), z.array(z.number().nullable())])),
});

export function packedSamples(samples: readonly Sample[]): Buffer {
  const series = [...new Set(samples.flatMap(({ values }) => Object.keys(values)))];
  const rows = samples.map(({ at, count, values }) => [at, count, series.map((name) => rounded(values[name]))]);
  return gzipSync(JSON.stringify({ format: 1, series, samples: rows }));
}

/** @throws Error where it is not what `packedSamples` makes */
export function samplesIn(bytes: Buffer): Sample[] {
  const { series, samples } = PackedSchema.parse(JSON.parse(gunzipSync(bytes).toString("utf8")));
  return samples.map(([at, count, row]) => {
    const known = series.flatMap((name, index) => {
      const value = row[index];
      return value === null || value === undefined ? [] : [[name, value] as const];
    });
    return { at, count, values: Object.fromEntries(known) };
  });
}
