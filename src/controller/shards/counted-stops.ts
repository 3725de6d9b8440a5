import type { ShardControl, TenantLoad } from "../../ports/shard-control.ts";

/** A shard's control whose stops tell the last figures of what they stopped: with the stop the shard forgets them. */
export function countedStops(
  client: ShardControl,
  onStopped: (tenant: string, load: TenantLoad) => Promise<void>,
): ShardControl {
  return {
    state: () => client.state(),
    startTenant: (name, assignment) => client.startTenant(name, assignment),
    checkTenant: (name, assignment) => client.checkTenant(name, assignment),
    stopTenant: async (name, drainSeconds, options) => {
      const result = await client.stopTenant(name, drainSeconds, options);
      if (result.used) await onStopped(name, result.used);
      return result;
    },
    idle: (name) => client.idle(name),
    changeUser: (name, localpart, change) => client.changeUser(name, localpart, change),
    openSession: (name, localpart, seconds) => client.openSession(name, localpart, seconds),
    endSessions: (name, sessions) => client.endSessions(name, sessions),
    pingAppService: (name, id) => client.pingAppService(name, id),
    metricsOf: (name) => client.metricsOf(name),
    greet: (name, spreadSeconds) => client.greet(name, spreadSeconds),
    load: () => client.load(),
    get preparers() {
      return client.preparers;
    },
    close: () => client.close(),
  };
}
