import type { z } from "zod";

/** Zod's issues in words: the path, what was given, what is allowed. */
export function describeIssues(error: z.ZodError): string[] {
  return error.issues.map((issue) => {
    const path = issue.path.map(String).join(".");
    if (issue.code === "unrecognized_keys") {
      const keys = issue.keys.map((key) => (path ? `${path}.${key}` : key));
      return `${keys.join(", ")}: no such setting`;
    }
    const given = "input" in issue ? `, but ${shown(issue.input)} was given` : "";
    const allowed = issue.message.replace(/^Invalid input: /, "").replace(/, received .*$/, "");
    return `${path || "the document"}: ${allowed}${given}`;
  });
}

function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}
