/** What another tenant has already, in words; always these, so that they can be left out for those who may not know of it. */
export function belongsTo(what: string, holder: string): string {
  return `${what} belongs to tenant ${holder} already`;
}

/** After which tenant another one was made, in words; likewise. */
export function likeTenant(template: string): string {
  return `as tenant ${template} is`;
}

export function withoutHolder(text: string): string {
  return text
    .replaceAll(/\bbelongs to tenant [a-z0-9-]+ already/g, "belongs to another tenant already")
    .replaceAll(/\bas tenant [a-z0-9-]+ is\b/g, "as another tenant is");
}
