import { TENANT_PHASES } from "../../../../src/model/tenant.ts";
import type { Tenant } from "../../api/client.ts";

/** How a tenant is, in sentences: what a person would say who looked at everything. */
export function stateOf({ status, change }: Tenant): string[] {
  const { phase, move, quarantine, throttle, retryAt, message } = status;
  const sentences = [`${phase}: ${TENANT_PHASES[phase]}`];
  if (message !== "") sentences.push(message);
  if (move) sentences.push(`It moves from ${move.from} to ${move.to} (${move.reason}); the step is ${move.step}`);
  if (phase === "Failed" && retryAt !== undefined) sentences.push(`It is tried again at ${retryAt}`);
  if (change.state === "Pending" && change.message !== message) sentences.push(`A change waits: ${change.message}`);
  if (change.state === "Refused" && change.message !== message)
    sentences.push(`A change is refused: ${change.message}`);
  if (quarantine) sentences.push(`It is quarantined on a shard of its own: ${quarantine.message}`);
  if (throttle) sentences.push("It takes more than its CPU budget, and is throttled");
  return sentences;
}
