import { copiedMapping, editable, textReadAs } from "./config-editing.ts";
import { UserError } from "./errors.ts";
import type { Labels } from "./labels.ts";
import { readSynapseYaml } from "./synapse-yaml.ts";
import type { TenantSpec } from "./tenant.ts";
import { isMapping } from "./mapping.ts";

/**
 * Options that say who a homeserver is, where its data is, or who signs its users in: another one with the same would harm the first, or be open to
 * those who hold the first one's secret.
 */
const ITS_OWN = [
  "server_name",
  "public_baseurl",
  "signing_key",
  "old_signing_keys",
  "macaroon_secret_key",
  "form_secret",
  "registration_shared_secret",
  "password_config.pepper",
  "jwt_config",
  "matrix_authentication_service",
  "experimental_features.msc3861",
  "database",
  "databases",
  "media_storage_providers",
  "synapse_shards.app_services",
  "synapse_shards.hosts",
] as const;

/** What its authentication service is the reason of: without one, a homeserver lets nobody in, or does not start. */
const OF_ITS_SERVICE = ["password_config.enabled", "experimental_features.msc4108_enabled"] as const;

/** What machines write there is about one tenant. */
const OURS = /^synapse-shards\.io\//;

export interface FromTemplate {
  spec: Pick<
    TenantSpec,
    "release" | "config" | "hibernation" | "placement" | "isolation" | "labels" | "plan" | "quotas"
  >;
  /** Options of its configuration that are not copied. */
  left: string[];
}

/**
 * What a new tenant takes from one that is there: not its keys, server name, hosts, bridges and data.
 * @param withConfig false where it gets another configuration @throws UserError InvalidInput where its configuration cannot be taken apart as it is written
 */
export function fromTemplate(template: TenantSpec, withConfig = true): FromTemplate {
  const { release, hibernation, placement, isolation, labels, plan, quotas } = template;
  const { text, left } = withConfig ? copyOf(template.config) : { text: "", left: [] };
  // Until when it was not to be moved is of its own past.
  const { doNotMoveUntil: _, ...where } = placement ?? {};
  const words: Labels = Object.fromEntries(Object.entries(labels ?? {}).filter(([key]) => !OURS.test(key)));
  return {
    spec: {
      release,
      config: text,
      ...(hibernation ? { hibernation } : {}),
      placement: where,
      ...(isolation ? { isolation } : {}),
      labels: words,
      ...(plan === undefined ? {} : { plan }),
      ...(quotas ? { quotas } : {}),
    },
    left,
  };
}

/**
 * A configuration without what is one homeserver's own. Comments and order stay.
 * @returns also the options that are not copied @throws UserError InvalidInput where it cannot be taken apart as it is written
 */
export function copyOf(config: string): { text: string; left: string[] } {
  const before = readSynapseYaml(config);
  const hasService = valueAt(before, ["matrix_authentication_service", "enabled"]) === true;
  const left = [...ITS_OWN, ...(hasService ? OF_ITS_SERVICE : [])].filter(
    (path) => valueAt(before, path.split(".")) !== undefined,
  );
  if (left.length === 0) return { text: config, left };
  const document = editable(config);
  for (const path of left) document.deleteIn(path.split("."));
  const text = textReadAs(document, without(before, left));
  if (text !== undefined) return { text, left };
  throw new UserError(
    "InvalidInput",
    `its configuration cannot be copied without ${left.join(", ")} as it is written: give --config, or write these out without aliases and merge keys`,
  );
}

function valueAt(value: unknown, [key, ...rest]: string[]): unknown {
  if (key === undefined) return value;
  return isMapping(value) ? valueAt(value[key], rest) : undefined;
}

function without(config: Record<string, unknown>, paths: readonly string[]): Record<string, unknown> {
  const copy = copiedMapping(config);
  for (const path of paths) {
    const [first = "", second] = path.split(".");
    const below = copy[first];
    if (second === undefined) delete copy[first];
    else if (isMapping(below)) {
      const { [second]: _, ...rest } = below;
      copy[first] = copiedMapping(rest);
    }
  }
  return copy;
}
