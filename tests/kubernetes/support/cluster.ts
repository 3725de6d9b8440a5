/** Tests that need a cluster are skipped without one; `bin/checks.mjs` says so. */
export const withoutCluster = process.env["KUBECONFIG"] === undefined;
