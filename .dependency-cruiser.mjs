// Which folder of `src/` may import which: words ← decisions and ports ← controller ← API ← platforms. See ARCHITECTURE.md.

/** What every platform is made of. */
const PARTS = [
  "api",
  "controller",
  "database",
  "backups",
  "checks",
  "acme",
  "shard",
  "ports",
  "certificates",
  "logging",
  "memory",
  "model",
];

/** Folders (below `src/`), each with the folders it may import from besides itself. */
const MAY_IMPORT = {
  model: [],
  logging: ["model"],
  memory: [],
  certificates: ["model"],
  planner: ["model"],
  rollout: ["model"],
  ports: ["model"],
  shard: ["ports", "model"],
  database: ["ports", "model"],
  backups: ["ports", "model"],
  notifications: ["ports", "model"],
  archives: ["model"],
  checks: ["ports", "model"],
  acme: ["certificates", "ports", "model"],
  controller: ["planner", "rollout", "ports", "model"],
  api: ["controller/service", "archives", "ports", "model"],
  gateway: ["certificates", "logging", "memory", "model"],
  monitoring: ["controller", "gateway", "model"],
  cli: ["api", "controller/service", "archives", "model", "platforms/local/up"],
  // A platform brings the parts together; it knows nothing of another one, nor of who calls it.
  "platforms/local": [...PARTS, "notifications"],
  "platforms/kubernetes": PARTS,
};

/** Folders of the controller, from what stands on nothing else to what stands on the others. The files beside them are for all. */
const CONTROLLER_LAYERS = [
  "claims",
  "routes",
  "start",
  "shards",
  "moves",
  "tenants",
  "planning",
  "service",
  "backups",
  "exports",
  "notifications",
  "imports",
];

const folder = (name) => `^src/${name}/`;

/** Each folder, from which everything in `src/` but what is named is out of reach. */
const between = Object.entries(MAY_IMPORT).map(([name, others]) => ({
  name: `${name.replaceAll("/", "-")}-imports`,
  comment: `src/${name} may import from: ${[name, ...others].join(", ")}`,
  severity: "error",
  from: { path: folder(name) },
  to: { path: "^src/", pathNot: [name, ...others].map(folder) },
}));

const inController = CONTROLLER_LAYERS.slice(0, -1).map((name, index) => ({
  name: `controller-${name}-imports`,
  comment: `src/controller/${name} stands below: ${CONTROLLER_LAYERS.slice(index + 1).join(", ")}`,
  severity: "error",
  from: { path: folder(`controller/${name}`) },
  to: { path: CONTROLLER_LAYERS.slice(index + 1).map((above) => folder(`controller/${above}`)) },
}));

export default {
  forbidden: [
    {
      name: "no-circles",
      comment: "Two files that import each other are one file, or lack a third",
      severity: "error",
      from: {},
      to: { circular: true },
    },
    {
      name: "no-new-folder-without-a-rule",
      comment: "A folder of src/ says above what it may import",
      severity: "error",
      from: { path: "^src/", pathNot: Object.keys(MAY_IMPORT).map(folder) },
      to: {},
    },
    {
      name: "composition-imports-nothing-back",
      comment: "controller.ts puts the folders of the controller together",
      severity: "error",
      from: { path: "^src/controller/[^/]+/" },
      to: { path: "^src/controller/(controller|gauges)\\.ts$" },
    },
    {
      name: "no-tests-in-the-product",
      comment: "What the product needs is in src/",
      severity: "error",
      from: { path: "^src/" },
      to: { path: "^(tests|bench|soak|bin)/" },
    },
    ...between,
    ...inController,
  ],
  // TypeScript 7 has no API for tools yet; swc reads type imports too.
  options: { parser: "swc", tsPreCompilationDeps: true, doNotFollow: { path: "node_modules" } },
};
