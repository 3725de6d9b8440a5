/**
 * What a tenant admin may do with a route:
 * - `never`: it is the cluster's, or reveals others' tenants;
 * - `own`: its tenant (`{name}` in the path) must be one of theirs; the array has the fields of the body that they may set;
 * - `filtered`: the handler answers with what is theirs (`request.scope`);
 * - `everybody`: it is the same for all, or about whoever asks.
 *
 * Every route of the API has a rule; a test fails for one that has none, and until it has, it is refused.
 */
export type TenantAdminRule = "never" | "filtered" | "everybody" | { own: readonly string[] };

const own = (...fields: string[]): TenantAdminRule => ({ own: fields });

export const TENANT_ADMIN_RULES: Readonly<Record<string, TenantAdminRule>> = {
  // Who asks, and what there is.
  whoAmI: "everybody",
  getOpenApi: "everybody",
  getHealth: "everybody",
  listSignInMethods: "everybody",
  signIn: "everybody",
  beginOidc: "everybody",
  finishOidc: "everybody",
  beginEnrolment: "everybody",
  enrolPasskey: "everybody",
  enrolPassword: "everybody",
  beginPasskey: "everybody",
  signInWithPasskey: "everybody",
  signInWithPassword: "everybody",
  signOut: "everybody",

  // Their tenants.
  listTenants: "filtered",
  getTenant: own(),
  tenantUsage: own(),
  getTenantRest: own(),
  getTenantQuotas: own(),
  getTenantDns: own(),
  checkTenant: own(),
  tenantLogs: own(),
  // Release, placement, isolation, sleep, plan and quotas decide what a tenant takes of the cluster.
  updateTenant: own("config", "revertConfig", "labels"),
  checkConfig: own("config"),
  registerUser: own("username", "password", "admin"),
  listUsers: own(),
  resetPassword: own("password", "logoutDevices"),
  deactivateUser: own("erase"),
  makeAdmin: own("admin"),
  pingAppService: own(),
  getTenantMetrics: own(),
  getAdminAccess: own(),
  // Where the operator lets them; the handler looks.
  openAdminAccess: own("allowedNetworks"),
  closeAdminAccess: own(),
  openAdminSession: own(),
  sleepTenant: own(),
  wakeTenant: own(),
  listBackups: own(),
  backUpTenant: own(),

  // Of the cluster, what concerns their tenants.
  getStatus: "filtered",
  listProblems: "filtered",
  listEvents: "filtered",
  listUsage: "filtered",
  listJobs: "filtered",
  getJob: "filtered",
  listCertificates: "filtered",
  listDeletedTenants: "filtered",
  listNewestBackups: "filtered",
  readAudit: "filtered",

  // How many tenants there are, where they run, and what they take is the cluster's to decide.
  createTenant: "never",
  deleteTenant: "never",
  moveTenant: "never",
  renameTenant: "never",
  quarantineTenant: "never",
  liftQuarantine: "never",
  // Whoever suspended it had a reason.
  suspendTenant: "never",
  resumeTenant: "never",
  undeleteTenant: "never",
  purgeTenant: "never",
  listPurges: "never",
  // A backup of that name may be of somebody else's tenant of before.
  verifyBackup: "never",
  restoreTenant: "never",
  undoRestore: "never",
  forgetRestore: "never",
  inspectTenant: "never",
  listInspections: "never",
  getInspection: "never",
  getInspectionLogin: "never",
  removeInspection: "never",
  // Of the whole database server.
  getPointInTime: "never",
  // The archive has the signing key.
  exportTenant: "never",
  importTenant: "never",
  renewCertificate: "never",
  // Messages of tenants may name others, which only whole answers are searched for.
  watchTenants: "never",
  // Where databases are, and who is there.
  listDatabaseServers: "never",
  moveDatabase: "never",
  cancelDatabaseMove: "never",
  // Numbers of all tenants.
  getHistory: "never",
  listShards: "never",
  getShard: "never",
  drainShard: "never",
  shardLogs: "never",
  // How many tenants have a plan.
  listPlans: "never",
  getFleet: "never",
  changeFleet: "never",
  rollBackFleet: "never",
  listNotificationChannels: "never",
  testNotifications: "never",
  shutdown: "never",
  // Names of all tenants.
  getMetrics: "never",
  verifyAudit: "never",
  listTokens: "never",
  createToken: "never",
  revokeToken: "never",
  listAccounts: "never",
  createAccount: "never",
  resetAccount: "never",
  removeAccount: "never",

  // For gateways.
  followRoutes: "never",
  acknowledgeRoutes: "never",
  countRequests: "never",
  requestWakes: "never",
  getSharedCertificates: "never",
};

export function ruleOf(operationId: string | undefined): TenantAdminRule {
  return TENANT_ADMIN_RULES[operationId ?? ""] ?? "never";
}
