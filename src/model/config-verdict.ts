/** What would become of a configuration, if it were asked for. */
export interface ConfigVerdict {
  /** `Unknown`: nobody can judge it now, and the message says why. */
  verdict: "Accepted" | "Refused" | "Unknown";
  /** Of a refusal, a code for machines. */
  reason?: string;
  message?: string;
  /** What is probably a mistake in an accepted one, a sentence each. */
  warnings: string[];
}
