/** What V8's profiler writes, as far as it is used here. */
export interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number }; children?: number[] }[];
  samples: number[];
  /** Microseconds before each sample. */
  timeDeltas: number[];
}

/** Not work. */
const IDLE = new Set(["(idle)", "(program)"]);

/** @returns a line for each stack, from its root, with the milliseconds in it, as flame graphs are made of */
export function foldedOf({ nodes, samples, timeDeltas }: CpuProfile): string {
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)));
  const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
  const stackOf = (id: number): string[] => {
    const parent = parents.get(id);
    return parent === undefined ? [] : [...stackOf(parent), names.get(id)!];
  };
  const took = new Map<number, number>();
  for (const [index, id] of samples.entries()) took.set(id, (took.get(id) ?? 0) + (timeDeltas[index] ?? 0));
  const lines = [...took].flatMap(([id, microseconds]) => {
    const milliseconds = Math.round(microseconds / 1000);
    return milliseconds === 0 || IDLE.has(names.get(id)!) ? [] : [`${stackOf(id).join(";")} ${milliseconds}`];
  });
  return `${lines.join("\n")}\n`;
}

function nameOf({ functionName, url, lineNumber }: CpuProfile["nodes"][number]["callFrame"]): string {
  const file = url.split("/").slice(-2).join("/");
  const name = functionName === "" ? "(anonymous)" : functionName;
  return file === "" ? name : `${name} (${file}:${lineNumber + 1})`.replaceAll(";", ",");
}
