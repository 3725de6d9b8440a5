import { useState } from "react";
import { useQueryClient } from "@tanstack/react-query";
import { api, dataOf, sentence } from "../../api/client.ts";
import { Dialog } from "../../ui/action.tsx";
import { Command } from "../../ui/command.tsx";
import { counted } from "../../ui/format.ts";
import { say } from "../../ui/toasts.tsx";
import { messageOf } from "../../ui/message.ts";

interface Verb {
  verb: string;
  /** What happens to each of them. */
  what: string;
  command: string;
  act: (name: string) => Promise<unknown>;
}

const at = (name: string) => ({ params: { path: { name } } });

const VERBS: Verb[] = [
  {
    verb: "Move",
    what: "Each is moved to the best other shard. Requests wait meanwhile; clients stay connected.",
    command: "tenant move",
    act: (name) => dataOf(api.POST("/v1/tenants/{name}/move", { ...at(name), body: {} })),
  },
  {
    verb: "Sleep",
    what: "Each stops until its next request. One that owes something to somebody stays awake, and says why.",
    command: "tenant sleep",
    act: (name) => dataOf(api.POST("/v1/tenants/{name}/sleep", at(name))),
  },
  {
    verb: "Wake",
    what: "Each that sleeps is started.",
    command: "tenant wake",
    act: (name) => dataOf(api.POST("/v1/tenants/{name}/wake", at(name))),
  },
  {
    verb: "Suspend",
    what: "Each stops, and its requests are refused until it is resumed. Data and keys stay.",
    command: "tenant suspend",
    act: (name) => dataOf(api.POST("/v1/tenants/{name}/suspend", at(name))),
  },
  {
    verb: "Resume",
    what: "Each that is suspended is started again.",
    command: "tenant resume",
    act: (name) => dataOf(api.POST("/v1/tenants/{name}/resume", at(name))),
  },
];

/** As many at once as do not hold up other requests. */
const AT_ONCE = 4;

export function BulkBar({ names, clear }: { names: string[]; clear: () => void }) {
  const [verb, setVerb] = useState<Verb>();
  return (
    <div className="notice" role="group" aria-label="Chosen tenants">
      <div className="row">
        <strong>{counted(names.length, "tenant")} chosen</strong>
        {VERBS.map((known) => (
          <button key={known.verb} type="button" className="small" onClick={() => setVerb(known)}>
            {known.verb} …
          </button>
        ))}
        <button type="button" className="quiet small" onClick={clear}>
          Choose none
        </button>
      </div>
      {verb && <Preview verb={verb} names={names} close={() => setVerb(undefined)} clear={clear} />}
    </div>
  );
}

function Preview({
  verb: { verb, what, command, act },
  names,
  close,
  clear,
}: {
  verb: Verb;
  names: string[];
  close: () => void;
  clear: () => void;
}) {
  const client = useQueryClient();
  const [done, setDone] = useState<number>();
  const [failed, setFailed] = useState<string[]>([]);
  const run = async () => {
    setDone(0);
    const problems: string[] = [];
    const waiting = [...names];
    const work = async () => {
      for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
        try {
          await act(name);
        } catch (error) {
          problems.push(`${name}: ${messageOf(error)}`);
        }
        setDone((before = 0) => before + 1);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    void client.invalidateQueries();
    setFailed(problems);
    if (problems.length > 0) return;
    say(`${verb}: asked for ${counted(names.length, "tenant")}`);
    clear();
    close();
  };
  const title = `${verb} ${counted(names.length, "tenant")}`;
  const isEnded = done === names.length;
  return (
    <Dialog title={title} close={close}>
      <div>
        <h2>{title}?</h2>
        <p>{what}</p>
        <ul className="preview" tabIndex={0} aria-label="Tenants">
          {names.map((name) => (
            <li key={name}>{name}</li>
          ))}
        </ul>
        <Command text={names.map((name) => `synapse-shards ${command} ${name}`).join("; ")} />
        {done !== undefined && (
          <p role="status">
            {done} of {names.length}
          </p>
        )}
        {failed.length > 0 && (
          <div className="notice" data-tone="bad" role="alert">
            {counted(failed.length, "tenant")} refused:
            <ul>
              {failed.map((problem) => (
                <li key={problem}>{sentence(problem)}</li>
              ))}
            </ul>
          </div>
        )}
        <footer>
          <button type="button" onClick={close}>
            {isEnded ? "Close" : "Cancel"}
          </button>
          {!isEnded && (
            <button type="button" className="primary" disabled={done !== undefined} onClick={() => void run()}>
              {verb}
            </button>
          )}
        </footer>
      </div>
    </Dialog>
  );
}
