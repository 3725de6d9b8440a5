import { useEffect, useRef, useState } from "react";
import { linesOf } from "../api/lines.ts";
import { useMayTend } from "../api/session.ts";
import { Command } from "./command.tsx";
import { Empty, Failure } from "./states.tsx";

/** More than anybody scrolls through; the command line has them all. */
const LINES_KEPT = 2_000;
const TAIL = 200;

/** The end of a log, and what comes from then on. */
export function LogView({ path, command }: { path: string; command: string }) {
  const mayRead = useMayTend();
  const [lines, setLines] = useState<string[]>([]);
  const [error, setError] = useState<Error>();
  const [attempt, setAttempt] = useState(0);
  const [words, setWords] = useState("");
  const end = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!mayRead) return;
    const leaving = new AbortController();
    setLines([]);
    setError(undefined);
    const read = async () => {
      try {
        for await (const line of linesOf(`${path}?follow=true&tail=${TAIL}`, leaving.signal))
          setLines((before) => [...before.slice(-LINES_KEPT), line]);
      } catch (problem) {
        if (!leaving.signal.aborted) setError(problem as Error);
      }
    };
    void read();
    return () => leaving.abort();
  }, [path, mayRead, attempt]);
  useEffect(() => {
    end.current?.scrollTo({ top: end.current.scrollHeight });
  }, [lines]);
  if (!mayRead) return <Empty title="Logs are for operators">They may contain what users do.</Empty>;
  const shown = words === "" ? lines : lines.filter((line) => line.toLowerCase().includes(words.toLowerCase()));
  return (
    <div className="stack">
      <div className="row">
        <input
          type="search"
          aria-label="Lines with"
          placeholder="Lines with"
          value={words}
          onChange={({ target }) => setWords(target.value)}
        />
        <span className="muted">follows as lines come</span>
      </div>
      {error && <Failure error={error} retry={() => setAttempt((before) => before + 1)} />}
      <div className="card log" ref={end} tabIndex={0} role="log" aria-label="Log">
        {shown.length === 0 ? <Empty title="No lines yet" /> : shown.map((line, index) => <p key={index}>{line}</p>)}
      </div>
      <Command text={command} />
    </div>
  );
}
