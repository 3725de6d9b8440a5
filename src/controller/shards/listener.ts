/** A tenant's listener, and the secret without which it answers nobody. */
export interface Listener {
  address: string;
  serverName: string;
  secret: string | undefined;
}

/** What a request of ours there has to say. */
export function headersFor({ serverName, secret }: Listener): Record<string, string> {
  return { host: serverName, ...(secret === undefined ? {} : { "x-synapse-shards-secret": secret }) };
}
