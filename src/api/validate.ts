import type { FastifySchemaCompiler } from "fastify";
import { z } from "zod";
import { describeIssues, keysAt } from "../model/validation.ts";
import { InvalidRequest } from "./errors.ts";

/** Fields whose content is not repeated in an error, because it may be secret. */
const SECRET_FIELDS = new Set<PropertyKey>(["password", "config", "secret", "code", "flow", "response"]);

/** Checks each part of a request; an error names every wrong path, what was given and what is allowed. */
export const validatorCompiler: FastifySchemaCompiler<z.ZodType> = ({ schema }) => {
  return (data: unknown) => {
    // Fastify gives null for an absent body.
    const result = schema.safeParse(data ?? undefined, { reportInput: true });
    return result.success ? { value: result.data } : { error: new InvalidRequest(problemsOf(schema, result.error)) };
  };
};

function problemsOf(schema: z.ZodType, error: z.ZodError): string[] {
  return error.issues.flatMap((issue) => {
    const [text = ""] = describeIssues(new z.ZodError([repeatsInput(issue) ? issue : withoutInput(issue)]));
    if (issue.code === "unrecognized_keys") return [`${text}; ${allowedKeys(schema, issue.path)}`];
    return [text.replace(/^the document: /, "")];
  });
}

/** Whether an error may, and need, quote what was given. */
function repeatsInput(issue: z.core.$ZodIssue): boolean {
  // Our own rules' words quote it where that is good.
  if (issue.code === "custom") return false;
  if (issue.code === "invalid_type" && issue.message.endsWith("received undefined")) return false;
  const [first] = issue.path;
  // Not the whole body either: a password may be anywhere in what is no object.
  return first !== undefined && !SECRET_FIELDS.has(first);
}

function withoutInput(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  const { input: _, ...rest } = issue;
  return rest;
}

function allowedKeys(schema: z.ZodType, path: readonly PropertyKey[]): string {
  const keys = keysAt(schema, path);
  return keys.length > 0 ? `allowed are ${keys.join(", ")}` : "leave it out";
}
