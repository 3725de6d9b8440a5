import type { IncomingHttpHeaders } from "node:http";
import type { Route } from "../../model/routes.ts";
import { keptAnswer } from "./answer.ts";
import { nothingNew, type Poll, type PollIdentity } from "./idle-polls.ts";
import type { Question } from "./known-answers.ts";
import type { Sleepers } from "./sleepers.ts";

/** Larger ones are not worth keeping. */
const MAX_BYTES = 16 * 1024;

/** What an answer is recorded for. */
export type Subject =
  | { type: "poll"; poll: Poll; identity: PollIdentity }
  | { type: "question"; question: Question; host: string };

/** An answer on its way to a client, of which a copy is kept if it can be given again. */
export class Recording {
  readonly #sleepers: Sleepers;
  readonly #subject: Subject;
  readonly #status: number;
  readonly #headers: IncomingHttpHeaders;
  #chunks: Buffer[] | undefined = [];
  #bytes = 0;

  constructor(sleepers: Sleepers, subject: Subject, status: number, headers: IncomingHttpHeaders) {
    this.#sleepers = sleepers;
    this.#subject = subject;
    this.#status = status;
    this.#headers = headers;
  }

  add(chunk: Buffer): void {
    this.#bytes += chunk.length;
    if (this.#bytes > MAX_BYTES) this.#chunks = undefined;
    else this.#chunks?.push(chunk);
  }

  /** The answer is complete. @param route under which it was asked for, if that still holds; else nothing is kept */
  end(route: Route | undefined): void {
    const body = this.#chunks && Buffer.concat(this.#chunks);
    const subject = this.#subject;
    if (!route || !body) return;
    if (subject.type === "question") {
      const { question, host } = subject;
      const text = body.toString("latin1");
      this.#sleepers.answers.remember(route, host, question, this.#status, this.#headers, text, Date.now());
      return;
    }
    const { tenant, epoch } = route;
    const said = this.#status === 200 ? nothingNew(subject.poll.kind, body.toString("utf8")) : undefined;
    const kept = said && keptAnswer(200, this.#headers, body.toString("latin1"));
    if (said && kept) this.#sleepers.polls.remember(tenant, epoch, subject.identity.key, said, kept, performance.now());
  }
}
