import { adminOriginsOf } from "../../../model/admin-access.ts";
import type { ClusterConfig } from "../../../model/cluster-config.ts";
import type { AuthorityFiles } from "../certificates.ts";
import type { ControllerConfig } from "../controller-config.ts";
import type { DataPaths } from "../data-directory.ts";
import type { RunningPostgres } from "../postgres/postgres.ts";
import { cacheDirectory } from "../toolchain/toolchain.ts";
import type { ClusterPorts } from "./cluster-ports.ts";

const LOOPBACK = "127.0.0.1";

/** What the parts of a running cluster have in common. */
export interface ClusterFacts {
  dataDir: string;
  paths: DataPaths;
  ports: ClusterPorts;
  database: RunningPostgres;
  authority: AuthorityFiles;
  apiUrl: string;
  gatewayUrls: { http: string; https: string };
}

export function controllerConfig(cluster: ClusterConfig, facts: ClusterFacts): ControllerConfig {
  const { dataDir, paths, ports, database, authority, gatewayUrls } = facts;
  const { host, port, adminUser: user, passwordFile } = database;
  return {
    dataDir,
    storeFile: paths.store,
    historyFile: paths.history,
    storeKeyFile: cluster.storeKeyFile ?? paths.storeKey,
    api: { ...cluster.api, port: ports.api },
    apiTokenFile: paths.apiToken,
    gatewayTokenFile: paths.gatewayToken,
    tokensFile: paths.tokens,
    auditFile: paths.audit,
    readyFile: paths.controllerReady,
    logFile: paths.log("controller"),
    postgres: { host, port, user, passwordFile },
    cluster,
    caCertificate: authority.certificate,
    certificatesDirectory: paths.certificates,
    cacheDir: cacheDirectory(),
    gatewayUrls,
    ...(ports.admin === undefined ? {} : { adminPort: ports.admin }),
  };
}

/** As `GatewayConfigSchema` has it, which is the gateway's to check. */
export function gatewayConfig({ gateway, certificates }: ClusterConfig, facts: ClusterFacts): object {
  const { paths, ports, authority, apiUrl } = facts;
  const { host, port: _port, tlsPort: _tlsPort, certificateDomains: _domains, adminAccess, ...limits } = gateway;
  return {
    http: { host, port: ports.http },
    https: { host, port: ports.https, certificates: paths.certificates, ca: authority },
    controller: { url: apiUrl, tokenFile: paths.gatewayToken },
    ...(certificates ? { certificatesFile: paths.sharedCertificates } : {}),
    routesFile: paths.routes,
    readyFile: paths.gatewayReady,
    metrics: { host: LOOPBACK, port: ports.metrics },
    ...limits,
    ...(adminAccess && ports.admin !== undefined
      ? {
          adminAccess: {
            host: adminAccess.host,
            port: ports.admin,
            tls: adminAccess.tls,
            allowedNetworks: adminAccess.allowedNetworks,
            origins: adminOriginsOf(adminAccess),
          },
        }
      : {}),
    logFile: paths.log("gateway"),
  };
}

/** Settings that a running cluster cannot take up. */
export function settingsForNextStart(before: ClusterConfig, after: ClusterConfig): string[] {
  const fixed = (config: ClusterConfig): Record<string, unknown> => ({
    "gateway.host": config.gateway.host,
    "gateway.port": config.gateway.port,
    "gateway.tlsPort": config.gateway.tlsPort,
    "gateway.adminAccess": JSON.stringify(config.gateway.adminAccess),
    "api.host": config.api.host,
    "api.port": config.api.port,
    "api.consoleHosts": JSON.stringify(config.api.consoleHosts),
    "api.trustedProxies": JSON.stringify(config.api.trustedProxies),
    "api.metricsNeedToken": config.api.metricsNeedToken,
    baseDomain: config.baseDomain,
    storeKeyFile: config.storeKeyFile,
    certificates: JSON.stringify(config.certificates),
    modules: JSON.stringify(config.modules),
    databaseServers: JSON.stringify(config.databaseServers),
    signIn: JSON.stringify(config.signIn),
    history: JSON.stringify(config.history),
  });
  const [old, next] = [fixed(before), fixed(after)];
  return Object.keys(old).filter((setting) => old[setting] !== next[setting]);
}

/** A configuration as it can be taken up now: what cannot stays as it was. */
export function withFixedSettings(before: ClusterConfig, after: ClusterConfig): ClusterConfig {
  const { host, port, tlsPort, adminAccess } = before.gateway;
  const { api, baseDomain, storeKeyFile, modules, certificates, databaseServers, signIn, history } = before;
  const fixed = { api, baseDomain, storeKeyFile, modules, certificates, databaseServers, signIn, history };
  return { ...after, gateway: { ...after.gateway, host, port, tlsPort, adminAccess }, ...fixed };
}
