import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { TenantSchema, ShardSchema } from "../../src/api/schemas.ts";
import { furtherHostProblem } from "../../src/model/further-hosts.ts";
import { AdminAccessSchema } from "../../src/model/admin-access.ts";

const DIRECTORY = resolve(import.meta.dirname, "../../charts/synapse-shards/crds");

interface Node {
  properties?: Record<string, Node>;
  items?: Node;
  $ref?: string;
  "x-kubernetes-preserve-unknown-fields"?: boolean;
}

function statusOf(file: string): Node {
  const crd = parse(readFileSync(join(DIRECTORY, file), "utf8")) as {
    spec: { versions: { schema: { openAPIV3Schema: Node } }[] };
  };
  return crd.spec.versions[0]!.schema.openAPIV3Schema.properties!["status"]!;
}

function resolved(node: Node, definitions: Record<string, Node>): Node {
  const name = node.$ref?.replace("#/$defs/", "");
  return name === undefined ? node : resolved(definitions[name]!, definitions);
}

/** Paths of fields that the model has and the definition lacks: the API server drops them without a word. */
function missing(
  reference: Node,
  definition: Node | undefined,
  definitions: Record<string, Node>,
  path = "status",
): string[] {
  const model = resolved(reference, definitions);
  if (definition?.["x-kubernetes-preserve-unknown-fields"]) return [];
  if (!definition) return [path];
  const fields = Object.entries(model.properties ?? {}).flatMap(([name, field]) =>
    missing(field, definition.properties?.[name], definitions, `${path}.${name}`),
  );
  return model.items ? [...fields, ...missing(model.items, definition.items, definitions, `${path}[]`)] : fields;
}

it.each([
  ["synapsetenants.yaml", TenantSchema],
  ["synapseshards.yaml", ShardSchema],
])("%s has every field of the model's status", (file, schema) => {
  const document = z.toJSONSchema(schema, { unrepresentable: "any" }) as Node & { $defs?: Record<string, Node> };
  const definitions = document.$defs ?? {};
  expect(missing(resolved(document, definitions).properties!["status"]!, statusOf(file), definitions)).toEqual([]);
});

it("takes the further hosts that a shard takes, as far as a pattern can tell", () => {
  const text = readFileSync(join(DIRECTORY, "synapsetenants.yaml"), "utf8");
  const [, source = ""] = /self\.matches\('(.*)'\)\n +message: a host is a name/.exec(text) ?? [];
  const pattern = new RegExp(source);
  for (const host of ["chat.clinic.example", "clinic-synapse.clinic.svc.cluster.local", "chat"])
    expect([host, pattern.test(host), furtherHostProblem(host)]).toEqual([host, true, undefined]);
  for (const host of ["Chat.example", "a:8008", "", "-a.example", "a..b", "*.example", "a_b.example", "a."])
    expect([host, pattern.test(host), furtherHostProblem(host) === undefined]).toEqual([host, false, false]);
});

it("takes the networks of administrators that the gateway takes, as far as a pattern can tell", () => {
  const text = readFileSync(join(DIRECTORY, "synapsetenants.yaml"), "utf8");
  const [, source = ""] = /self\.matches\('(\^\(\(25.*)'\)/.exec(text) ?? [];
  const pattern = new RegExp(source);
  const wrong = ["10.0.0.0/33", "256.0.0.1", "10.0.0", "fd00::/129", "clinic.example", "10.0.0.0/8 ", "10.0.0.0/", ""];
  const right = ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.7", "fd00::/8", "::1", "2001:db8::7/128", "::ffff:10.0.0.1"];
  for (const [networks, expected] of [
    [wrong, false],
    [right, true],
  ] as const)
    for (const network of networks) {
      expect([network, pattern.test(network)]).toEqual([network, expected]);
      const { success } = AdminAccessSchema.safeParse({ allowedNetworks: [network] });
      expect([network, success]).toEqual([network, expected]);
    }
});
