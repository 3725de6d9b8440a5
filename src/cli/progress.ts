import { note, plain } from "./output.ts";

/** Where there is no terminal, such as in a CI job's log: what is over within seconds needs no line. */
const LINE_EVERY_MS = 10_000;

export interface Told {
  tell(how: string): void;
  stop(): void;
}

/** Tells on stderr how something goes that takes long: at a terminal all the time, without one in a line now and then, where that is another. */
export async function progressOf(what: string, lineEveryMs = LINE_EVERY_MS): Promise<Told> {
  // A terminal of width 0 (some containers have one) would have the spinner clear lines without an end.
  const forPeople = process.stderr.isTTY === true && process.stderr.columns > 0;
  if (forPeople) {
    const spinner = (await import("ora")).default({ stream: process.stderr, discardStdin: false });
    spinner.start(what);
    return { tell: (how) => void (spinner.text = plain(`${what}: ${how}`)), stop: () => void spinner.stop() };
  }
  let said = "";
  let saidAt = Date.now();
  const tell = (how: string): void => {
    const line = plain(`${what}: ${how}`);
    if (line === said || Date.now() - saidAt < lineEveryMs) return;
    note(line);
    said = line;
    saidAt = Date.now();
  };
  return { tell, stop: () => {} };
}
