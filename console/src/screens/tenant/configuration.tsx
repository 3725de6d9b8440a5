import { useEffect, useState } from "react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { diffLines } from "diff";
import { api, dataOf, sentence, type Schemas, type Tenant } from "../../api/client.ts";
import { useMayTend } from "../../api/session.ts";
import { Command } from "../../ui/command.tsx";
import { Card } from "../../ui/page.tsx";
import { Empty, Failure, Waiting } from "../../ui/states.tsx";
import { say } from "../../ui/toasts.tsx";

/** The tenant's own part of homeserver.yaml: edited, looked at as a diff, and asked for. */
export function Configuration({ tenant }: { tenant: Tenant }) {
  const { name } = tenant.metadata;
  const mayRead = useMayTend();
  const current = useQuery({
    // Not among what is asked for after each event: it would be taken from under the one who edits it.
    queryKey: ["configuration", name],
    enabled: mayRead,
    queryFn: async ({ signal }) => {
      const query = { includeConfig: "true" as const };
      const found = await dataOf(api.GET("/v1/tenants/{name}", { signal, params: { path: { name }, query } }));
      return found.spec.config ?? "";
    },
  });
  if (!mayRead) return <Empty title="Configurations are for operators">They may contain passwords.</Empty>;
  if (current.data === undefined) return <Waiting query={current} what="the configuration" />;
  return (
    <div className="stack">
      <Verdict tenant={tenant} />
      <Editor key={current.data} name={name} before={current.data} />
    </div>
  );
}

/** What the shard made of the last change. */
function Verdict({ tenant: { metadata, change } }: { tenant: Tenant }) {
  const client = useQueryClient();
  const { name } = metadata;
  const revert = useMutation({
    mutationFn: () =>
      dataOf(api.PATCH("/v1/tenants/{name}", { params: { path: { name } }, body: { revertConfig: true } })),
    onSuccess: () => {
      say("The change is taken back");
      void client.invalidateQueries();
    },
  });
  if (change.state === "InEffect") return null;
  const isRefused = change.state === "Refused";
  return (
    <div className="notice" data-tone="warn" role="status">
      <strong>
        {isRefused ? "The last change is refused, and the tenant runs as before." : "A change is on its way."}
      </strong>
      <p>{sentence(change.message)}</p>
      {isRefused && (
        <div className="row">
          <button type="button" className="small" disabled={revert.isPending} onClick={() => revert.mutate()}>
            Take it back
          </button>
          <code>synapse-shards tenant update {name} --revert-config</code>
        </div>
      )}
      {revert.error && <Failure error={revert.error} />}
    </div>
  );
}

function Editor({ name, before }: { name: string; before: string }) {
  const client = useQueryClient();
  const [text, setText] = useState(before);
  const isChanged = text !== before;
  const save = useMutation({
    mutationFn: () => dataOf(api.PATCH("/v1/tenants/{name}", { params: { path: { name } }, body: { config: text } })),
    onSuccess: () => {
      say("The shard checks the change; the tenant goes on as before until it is in effect");
      void client.invalidateQueries();
    },
  });
  useWarningBeforeLoss(isChanged);
  const check = useCheck(name, text, isChanged);
  return (
    <>
      <Card
        title="Its own part of homeserver.yaml"
        aside={
          <span className="hint">Checked by its shard before it takes effect; a refused one changes nothing.</span>
        }
      >
        <textarea
          className="editor"
          aria-label="Configuration"
          spellCheck={false}
          rows={Math.min(28, Math.max(10, text.split("\n").length + 1))}
          placeholder="# Nothing of its own: everything is as the cluster has it."
          value={text}
          onChange={({ target }) => setText(target.value)}
        />
      </Card>
      {isChanged && (
        <Card title="What changes" flush>
          <Difference before={before} after={text} />
        </Card>
      )}
      {isChanged && <Foresight {...check} />}
      {save.error && <Failure error={save.error} />}
      <div className="row">
        <button
          type="button"
          className="primary"
          disabled={!isChanged || check.isUnderWay || check.verdict?.verdict === "Refused" || save.isPending}
          onClick={() => save.mutate()}
        >
          Ask for this
        </button>
        <button type="button" disabled={!isChanged} onClick={() => setText(before)}>
          Discard
        </button>
      </div>
      <Command text={`synapse-shards tenant edit ${name}`} />
    </>
  );
}

/** Of a check of what stands there: by then its author has stopped typing. */
const CHECK_AFTER_MS = 700;

interface Check {
  isUnderWay: boolean;
  verdict?: Schemas["ConfigVerdict"] | undefined;
  error?: Error | null;
}

/** What its shard would make of it; asked for when nobody has typed for a moment. */
function useCheck(name: string, text: string, isChanged: boolean): Check {
  const [settled, setSettled] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(text), CHECK_AFTER_MS);
    return () => clearTimeout(timer);
  }, [text]);
  const { data, error, isFetching } = useQuery({
    queryKey: ["config-check", name, settled],
    enabled: isChanged && settled === text,
    gcTime: 0,
    queryFn: ({ signal }) =>
      dataOf(
        api.POST("/v1/tenants/{name}/config/check", { signal, params: { path: { name } }, body: { config: settled } }),
      ),
  });
  return { isUnderWay: settled !== text || isFetching, verdict: settled === text ? data : undefined, error };
}

const FORESIGHTS = {
  Accepted: { tone: "good", words: "Its shard would accept this." },
  Refused: { tone: "bad", words: "Its shard would refuse this." },
  Unknown: { tone: "warn", words: "Nobody can judge this now." },
};

function Foresight({ isUnderWay, verdict, error }: Check) {
  if (error && !isUnderWay) return <Failure error={error} />;
  if (!verdict)
    return (
      <p className="muted" role="status">
        Its shard checks this …
      </p>
    );
  const { tone, words } = FORESIGHTS[verdict.verdict];
  return (
    <div className="notice" data-tone={verdict.warnings.length > 0 ? "warn" : tone} role="status">
      <strong>{words}</strong>
      {verdict.message && <p>{verdict.message}</p>}
      {verdict.warnings.length > 0 && (
        <ul>
          {verdict.warnings.map((warning) => (
            <li key={warning}>{warning}</li>
          ))}
        </ul>
      )}
    </div>
  );
}

const SIGNS = { added: "+", removed: "−", same: " " };

function Difference({ before, after }: { before: string; after: string }) {
  const lines = diffLines(before, after).flatMap(({ value, added, removed }) => {
    const kind: keyof typeof SIGNS = added ? "added" : removed ? "removed" : "same";
    return value
      .replace(/\n$/, "")
      .split("\n")
      .map((line) => ({ kind, line }));
  });
  return (
    <pre className="difference" role="group" tabIndex={0} aria-label="Difference">
      {lines.map(({ kind, line }, index) => (
        <span key={index} data-kind={kind}>
          {SIGNS[kind]} {line}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}

function useWarningBeforeLoss(isChanged: boolean): void {
  useEffect(() => {
    if (!isChanged) return;
    const warn = (event: BeforeUnloadEvent) => event.preventDefault();
    window.addEventListener("beforeunload", warn);
    return () => window.removeEventListener("beforeunload", warn);
  }, [isChanged]);
}
