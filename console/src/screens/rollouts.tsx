import { useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { api, ApiFailure, dataOf, sentence, type Schemas } from "../api/client.ts";
import { eventsQuery, fleetQuery } from "../api/queries.ts";
import { useMay } from "../api/session.ts";
import { ActionDialog, type Action } from "../ui/action.tsx";
import { Badge, type Tone } from "../ui/badge.tsx";
import { Command } from "../ui/command.tsx";
import { count, counted, duration, widthOf } from "../ui/format.ts";
import { Card, Page } from "../ui/page.tsx";
import { Empty, Waiting } from "../ui/states.tsx";
import { Time } from "../ui/time.tsx";
import { EventCard } from "./events.tsx";

type Fleet = Schemas["Fleet"];
type Kind = "set" | "pause" | "resume" | "rollback";

const TONES: Record<string, Tone> = {
  Idle: "good",
  WaitingForWindow: "rest",
  Paused: "rest",
  Halted: "bad",
  RollingBack: "warn",
  RolledBack: "warn",
};
const NAMES: Record<string, string> = {
  Idle: "Complete",
  WaitingForWindow: "Waiting for a window",
  RollingBack: "Rolling back",
  RolledBack: "Rolled back",
};

/** A release on its way to the tenants that follow the fleet. */
export function Rollouts() {
  const fleet = useQuery(fleetQuery);
  const [open, setOpen] = useState<Kind>();
  const mayOperate = useMay("operator");
  const isNone = fleet.error instanceof ApiFailure && fleet.error.status === 404;
  const { data } = fleet;
  const kinds: Kind[] = data
    ? [
        "set",
        data.spec.rollout.paused ? "resume" : "pause",
        ...(data.status.previousRelease ? ["rollback" as const] : []),
      ]
    : ["set"];
  return (
    <Page
      title="Rollouts"
      lead="A new release of Synapse comes to the tenants that follow the fleet in waves, each watched before the next begins."
      actions={
        mayOperate &&
        (data || isNone) && (
          <>
            {kinds.map((kind) => (
              <button
                key={kind}
                type="button"
                className={kind === "rollback" ? "danger" : ""}
                onClick={() => setOpen(kind)}
              >
                {TITLES[kind]} …
              </button>
            ))}
          </>
        )
      }
    >
      {isNone && (
        <section className="card">
          <Empty title="There is no fleet yet">
            “Roll out” makes it. A tenant follows it after{" "}
            <code>synapse-shards tenant update NAME --release fleet</code>.
          </Empty>
        </section>
      )}
      {!data && !isNone && <Waiting query={fleet} what="the fleet" />}
      {data && !isNone && <Rollout fleet={data} />}
      <Command text="synapse-shards fleet status" />
      {open && <FleetDialog kind={open} fleet={isNone ? undefined : data} close={() => setOpen(undefined)} />}
    </Page>
  );
}

const TITLES: Record<Kind, string> = { set: "Roll out", pause: "Pause", resume: "Go on", rollback: "Roll back" };

function Rollout({ fleet: { spec, status } }: { fleet: Fleet }) {
  const events = useQuery(eventsQuery("Fleet/fleet"));
  const { phase, message, release, previousRelease, updated, total, failed, nextWindow } = status;
  const { rollout } = spec;
  return (
    <>
      <Card
        title={`Synapse ${release || spec.release}`}
        aside={<Badge tone={TONES[phase] ?? "busy"}>{NAMES[phase] ?? phase}</Badge>}
      >
        <div className="stack">
          {message !== "" && <p>{sentence(message)}</p>}
          <div className="bar">
            <div className="ends">
              <span>{previousRelease ? `In place of ${previousRelease}` : "The first of the fleet"}</span>
              <span className="number">
                {count(updated)} <span className="muted">of {counted(total, "tenant")}</span>
              </span>
            </div>
            <div className="meter" aria-hidden="true">
              <i
                data-tone={failed.length > 0 ? "warn" : undefined}
                style={{ width: widthOf(updated / Math.max(1, total)) }}
              />
            </div>
          </div>
          <Waves status={status} />
          {nextWindow && (
            <p className="muted">
              The next window opens <Time at={nextWindow} />.
            </p>
          )}
        </div>
      </Card>
      {failed.length > 0 && (
        <Card title={counted(failed.length, "failed tenant")}>
          <ul className="row">
            {failed.map((name) => (
              <li key={name}>
                <Link to="/tenants/$name" params={{ name }}>
                  {name}
                </Link>
              </li>
            ))}
          </ul>
        </Card>
      )}
      <Card title="How it goes">
        <dl className="facts">
          <dt>Canaries</dt>
          <dd>{canariesIn(rollout)}</dd>
          <dt>Waves after them</dt>
          <dd>
            of {counted(rollout.waveSize, "tenant")}, {counted(rollout.maxConcurrentMoves, "move")} at once
          </dd>
          <dt>A wave is watched for</dt>
          <dd>{duration(rollout.soakSeconds)}</dd>
          <dt>A tenant has failed after</dt>
          <dd>{duration(rollout.progressDeadlineSeconds)} without having arrived</dd>
          <dt>After {counted(rollout.maxFailures, "failure")}</dt>
          <dd>{rollout.onFailure === "Halt" ? "it stops" : "it goes back"}</dd>
          <dt>Windows</dt>
          <dd>
            {rollout.windows.length === 0
              ? "at any time"
              : rollout.windows.map(({ schedule, durationMinutes, timezone }) => (
                  <div key={`${schedule} ${timezone}`}>
                    <code>{schedule}</code> for {duration(durationMinutes * 60)}, {timezone}
                  </div>
                ))}
          </dd>
        </dl>
      </Card>
      <EventCard label="What happened" events={events.data ?? []} />
    </>
  );
}

function canariesIn({ canaries: { count: others, names } }: Fleet["spec"]["rollout"]): string {
  const parts = [...names, ...(others > 0 ? [`${others} of the oldest others`] : [])];
  return parts.length === 0 ? "none" : parts.join(", ");
}

/** As many as can be told apart. */
const MOST_WAVES = 60;

function Waves({ status: { wave, waves, phase } }: { status: Fleet["status"] }) {
  if (waves === 0) return null;
  const isDone = phase === "Idle";
  const stateOf = (index: number) => (isDone || index < wave ? "done" : index === wave ? "under way" : "to come");
  return (
    <ol className="waves" aria-label="Waves">
      {Array.from({ length: Math.min(waves, MOST_WAVES) }, (_, index) => (
        <li key={index} data-state={stateOf(index)}>
          {index === 0 ? "Canaries" : `Wave ${index}`}
          <span className="visually-hidden">: {stateOf(index)}</span>
        </li>
      ))}
      {waves > MOST_WAVES && <li>and {waves - MOST_WAVES} more</li>}
    </ol>
  );
}

function FleetDialog({ kind, fleet, close }: { kind: Kind; fleet: Fleet | undefined; close: () => void }) {
  const [release, setRelease] = useState(fleet?.spec.release ?? "");
  const [waveSize, setWaveSize] = useState(String(fleet?.spec.rollout.waveSize ?? 10));
  const [canary, setCanary] = useState(fleet?.spec.rollout.canaries.names.join(" ") ?? "");
  const names = canary.split(/[\s,]+/).filter((name) => name !== "");
  const canaries = { count: fleet?.spec.rollout.canaries.count ?? 1, names };
  const setting = { release: release.trim(), rollout: { waveSize: Number(waveSize), canaries } };
  const actions: Record<Kind, Omit<Action, "title" | "verb">> = {
    set: {
      command: `synapse-shards fleet set --release ${setting.release || "VERSION"} --wave-size ${waveSize}${names.map((name) => ` --canary ${name}`).join("")}`,
      done: `Synapse ${setting.release} is being rolled out`,
      act: () => dataOf(api.PATCH("/v1/fleet", { body: setting })),
      children: (
        <>
          <p>First the canaries get it, and are watched; then wave after wave. It stops where too many tenants fail.</p>
          <label>
            Release of Synapse
            <input value={release} required placeholder="1.163.2" onChange={({ target }) => setRelease(target.value)} />
          </label>
          <label>
            Tenants in a wave
            <input
              type="number"
              min={1}
              max={10_000}
              required
              value={waveSize}
              onChange={({ target }) => setWaveSize(target.value)}
            />
          </label>
          <label>
            Canaries, by name
            <input value={canary} onChange={({ target }) => setCanary(target.value)} />
            <span className="hint">And {counted(canaries.count, "other tenant")}, the oldest.</span>
          </label>
        </>
      ),
    },
    pause: {
      command: "synapse-shards fleet pause",
      done: "The rollout is paused",
      act: () => dataOf(api.PATCH("/v1/fleet", { body: { rollout: { paused: true } } })),
      children: <p>Moves under way are finished, and no more begin.</p>,
    },
    resume: {
      command: "synapse-shards fleet resume",
      done: "The rollout goes on",
      act: () => dataOf(api.PATCH("/v1/fleet", { body: { rollout: { paused: false } } })),
      children: <p>It goes on where it was paused.</p>,
    },
    rollback: {
      command: "synapse-shards fleet rollback",
      done: `Synapse ${fleet?.status.previousRelease} is being brought back`,
      isDangerous: true,
      ...(fleet?.status.previousRelease ? { typed: fleet.status.previousRelease } : {}),
      act: () => dataOf(api.POST("/v1/fleet/rollback")),
      children: (
        <p>
          The tenants that have {fleet?.spec.release} are moved back to {fleet?.status.previousRelease}, where their
          databases can be read by it.
        </p>
      ),
    },
  };
  return <ActionDialog action={{ title: TITLES[kind], verb: TITLES[kind], ...actions[kind] }} close={close} />;
}
