/** What another tenant has already, in words; always these, so that they can be left out for those who may not know of it. */
export function belongsTo(what: string, holder: string): string {
  return `${what} belongs to tenant ${holder} already`;
}

export function withoutHolder(text: string): string {
  return text.replaceAll(/\bbelongs to tenant [a-z0-9-]+ already/g, "belongs to another tenant already");
}
