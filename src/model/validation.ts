import { z } from "zod";
import { nearest } from "./nearest.ts";

/**
 * Zod's issues in words: the path, what was given, what is allowed. With the schema, an unknown key is answered with the nearest one
 * and all that are allowed in its place.
 */
export function describeIssues(error: z.ZodError, schema?: z.ZodType): string[] {
  return error.issues.flatMap((issue) => {
    const path = issue.path.map(String).join(".");
    if (issue.code === "unrecognized_keys") {
      const allowed = schema ? keysAt(schema, issue.path) : [];
      return issue.keys.map((key) => unknownKey(path, key, allowed));
    }
    const given = "input" in issue ? `, but ${shown(issue.input)} was given` : "";
    const allowed = issue.message.replace(/^Invalid input: /, "").replace(/, received .*$/, "");
    return [`${path || "the document"}: ${allowed}${given}`];
  });
}

function unknownKey(path: string, key: string, allowed: string[]): string {
  const words = `${path ? `${path}.${key}` : key}: no such setting`;
  if (allowed.length === 0) return words;
  const meant = nearest(key, allowed);
  return `${words}${meant === undefined ? "" : `; did you mean ${meant}?`} (allowed${path ? ` in ${path}` : ""}: ${allowed.join(", ")})`;
}

/** The keys of the object that a schema has at a path. */
export function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: z.ZodType | undefined = bare(schema);
  for (const part of path) {
    if (at instanceof z.ZodObject) at = (at.shape as Record<PropertyKey, z.ZodType>)[part];
    else if (at instanceof z.ZodArray) at = at.element as z.ZodType;
    else if (at instanceof z.ZodRecord) at = at.valueType as z.ZodType;
    else return [];
    if (at === undefined) return [];
    at = bare(at);
  }
  return at instanceof z.ZodObject ? Object.keys(at.shape) : [];
}

/** Without what says that it may be missing. */
function bare(schema: z.ZodType): z.ZodType {
  let at = schema;
  for (;;) {
    if (
      at instanceof z.ZodDefault ||
      at instanceof z.ZodPrefault ||
      at instanceof z.ZodOptional ||
      at instanceof z.ZodNullable
    ) {
      at = at.unwrap() as z.ZodType;
    } else if (at instanceof z.ZodPipe) {
      at = at.in as z.ZodType;
    } else {
      return at;
    }
  }
}

function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}
