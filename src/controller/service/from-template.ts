import { defined } from "../../model/defined.ts";
import { UserError } from "../../model/errors.ts";
import { FOLLOWS_FLEET } from "../../model/fleet.ts";
import { likeTenant } from "../../model/holder.ts";
import { labelsProblem } from "../../model/labels.ts";
import { fromTemplate } from "../../model/template-tenant.ts";
import type { Tenant } from "../../model/tenant.ts";
import type { CreateTenantRequest } from "./cluster-service.ts";

/**
 * A request with what it leaves to its template.
 * @returns also the words by which that is told @throws UserError InvalidInput; NotFound where there is no such template
 */
export async function filledIn(
  { fromTemplate: name, ...asked }: CreateTenantRequest,
  tenantOf: (name: string) => Promise<Tenant>,
): Promise<{ filled: CreateTenantRequest; words: string }> {
  if (name === undefined) return { filled: asked, words: "" };
  const { spec, left } = fromTemplate((await tenantOf(name)).spec, asked.config === undefined);
  const labels = { ...spec.labels, ...asked.labels };
  const problem = labelsProblem(labels);
  if (problem !== undefined) throw new UserError("InvalidInput", problem);
  const release = spec.release === "" ? FOLLOWS_FLEET : spec.release;
  const filled = { ...spec, release, ...defined(asked), name: asked.name, labels };
  return { filled, words: ` ${likeTenant(name)}${left.length === 0 ? "" : `, without its ${left.join(", ")}`}` };
}
