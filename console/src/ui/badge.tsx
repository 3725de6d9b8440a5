export type Tone = "good" | "warn" | "bad" | "busy" | "rest";

const TENANT_TONES: Record<string, Tone> = {
  Running: "good",
  Asleep: "rest",
  FallingAsleep: "rest",
  Suspended: "rest",
  Pending: "warn",
  Failed: "bad",
};
const SHARD_TONES: Record<string, Tone> = { Ready: "good", Lost: "bad", Failed: "bad" };
const NAMES: Record<string, string> = { FallingAsleep: "Falling asleep" };

/** Whatever is on its way to something else is busy. */
export function toneOf(kind: "Tenant" | "Shard", phase: string): Tone {
  return (kind === "Tenant" ? TENANT_TONES : SHARD_TONES)[phase] ?? "busy";
}

export function Badge({ tone, children }: { tone: Tone; children: string }) {
  return (
    <span className="badge" data-tone={tone}>
      <i aria-hidden="true" />
      {children}
    </span>
  );
}

export function Phase({ kind, phase }: { kind: "Tenant" | "Shard"; phase: string }) {
  return <Badge tone={toneOf(kind, phase)}>{phaseName(phase)}</Badge>;
}

export function phaseName(phase: string): string {
  return NAMES[phase] ?? phase;
}
