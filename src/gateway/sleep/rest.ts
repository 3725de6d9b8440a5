import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { Route, WakeCause } from "../../model/routes.ts";
import { delegationAnswer } from "../delegation.ts";
import { errors, type GatewayError } from "../errors.ts";
import type { GatewayMetrics } from "../metrics.ts";
import { isFromServer } from "../patience.ts";
import type { RequestBody } from "../request-body.ts";
import type { KeptAnswer } from "./answer.ts";
import { saidAnswer } from "./said-answer.ts";
import type { HeldOutcome, HeldPoll } from "./held-polls.ts";
import { identityOf, pollOf, withTimeout, type Poll, type PollIdentity } from "./idle-polls.ts";
import { questionOf, type Question } from "./known-answers.ts";
import { Recording, type Subject } from "./recording.ts";
import { isResting, type Sleepers } from "./sleepers.ts";

/** One request, as far as it can be dealt with without its tenant. */
export interface Visit {
  tenant(): string;
  request: IncomingMessage;
  body: RequestBody;
  /** `performance.now()` at its arrival. */
  startedAt: number;
  /** Whether it waits for its tenant already. */
  isParked(): boolean;
  /** Takes room for what it holds in memory, once. */
  takeMemory(): boolean;
  /** Looks at the route again. */
  advance(): void;
  reply(answer: KeptAnswer): void;
  refuse(error: GatewayError): void;
}

/** What becomes of a request while its tenant sleeps; and what is kept of its answer for that time. */
export class Rest implements HeldPoll {
  readonly #sleepers: Sleepers;
  readonly #metrics: GatewayMetrics;
  readonly #visit: Visit;
  readonly #poll: Poll | undefined;
  readonly #question: Question | undefined;
  #identity: PollIdentity | undefined;
  #isHeld = false;
  #target: string | undefined;
  #sentBy: Route | undefined;
  #recording: Recording | undefined;
  slot = 0;

  constructor(sleepers: Sleepers, metrics: GatewayMetrics, visit: Visit) {
    this.#sleepers = sleepers;
    this.#metrics = metrics;
    this.#visit = visit;
    const { method = "GET", headers } = visit.request;
    this.#poll = pollOf(method, this.#url);
    this.#question = questionOf(method, this.#url, headers);
  }

  get #url(): string {
    return this.#visit.request.url ?? "/";
  }

  get tenant(): string {
    return this.#visit.tenant();
  }

  get due(): number {
    return this.#visit.startedAt + (this.#poll?.timeoutMs ?? 0);
  }

  /** Path and query as they are sent. */
  get target(): string {
    return this.#target ?? this.#url;
  }

  get wakeCause(): WakeCause {
    if (this.#poll) return "poll";
    return isFromServer(this.#url) ? "federation" : "request";
  }

  /** @returns whether the request needs nothing of its tenant: it has been answered, or is held. To be asked again at each new route. */
  dealsWith(route: Route): boolean {
    if (!isResting(route)) {
      this.leave("passed");
      return false;
    }
    const { refuse } = this.#visit;
    if (this.isKnown(route)) return true;
    if (!this.#sleepers.own.serves(this.tenant, this.#url)) {
      this.#metrics.fromMemory.inc({ what: "unrecognized" });
      refuse(errors.unrecognized());
      return true;
    }
    return this.#poll !== undefined && this.#holds(route, this.#poll);
  }

  /** Answers what anybody may ask, and the tenant has answered before: where to find it, and its keys. @returns whether it did */
  isKnown(route: Route): boolean {
    const { request } = this.#visit;
    const question = this.#question;
    const known =
      question &&
      (saidAnswer(question, route) ??
        this.#sleepers.answers.find(route, request.headers.host ?? "", question, Date.now()));
    if (!question || !known) return false;
    this.#reply(question.topic, (known.status === 404 && delegationAnswer(request, route)) || known);
    return true;
  }

  /** Holds a poll that would wait in vain, or goes on holding it. */
  #holds(route: Route, poll: Poll): boolean {
    const { body, takeMemory, advance, isParked } = this.#visit;
    if (poll.kind === "sliding" && !body.ready) {
      if (!takeMemory()) return false;
      body.prepare(advance);
      return true;
    }
    const identity = this.#identify(poll);
    const answer = identity && this.#sleepers.polls.find(route, identity);
    if (!answer) {
      this.leave("doubted");
      return false;
    }
    if (this.#isHeld) return true;
    if (isParked()) return false;
    if (poll.timeoutMs === 0) {
      this.#reply("poll", answer);
      return true;
    }
    this.#isHeld = takeMemory() && this.#sleepers.held.enter(this);
    return this.#isHeld;
  }

  resume(): void {
    this.#visit.advance();
  }

  /** Its time is over, or the gateway stops: what is held has nothing to wait for. */
  answer(): void {
    if (!this.#isHeld) return;
    const route = this.#sleepers.routeOf(this.tenant);
    const answer = route && this.#identity && this.#sleepers.polls.find(route, this.#identity);
    // Forgotten meanwhile, as there was no room.
    if (!answer) return this.#visit.advance();
    this.leave("answered");
    this.#reply("poll", answer);
  }

  /** Holds it no longer. Once is enough, more does no harm. */
  leave(outcome: HeldOutcome): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#sleepers.held.leave(this);
    this.#metrics.polls.inc({ outcome });
    // Its client expects an answer when it said, not that long after now.
    this.#target = withTimeout(this.#url, this.due - performance.now());
  }

  #reply(what: string, answer: KeptAnswer): void {
    this.#metrics.fromMemory.inc({ what });
    this.#visit.reply(answer);
  }

  #identify(poll: Poll): PollIdentity | undefined {
    const { request, body } = this.#visit;
    this.#identity ??= identityOf(poll, request.headers.authorization ?? "", body.whole);
    return this.#identity;
  }

  /** It is sent to its tenant. */
  sentBy(route: Route): void {
    this.#sentBy = route;
  }

  /** The answer begins: what may be of use when the tenant sleeps is kept. */
  begin(status: number, headers: IncomingHttpHeaders): void {
    const { request } = this.#visit;
    this.#sleepers.own.saw(this.tenant, request.method ?? "GET", this.#url, status);
    const subject = this.#subject();
    if (!subject) return;
    // Whatever it is, it is newer.
    if (subject.type === "poll") this.#sleepers.polls.forgetPoll(this.tenant, subject.identity.key);
    this.#recording = new Recording(this.#sleepers, subject, status, headers);
  }

  #subject(): Subject | undefined {
    if (this.#question)
      return { type: "question", question: this.#question, host: this.#visit.request.headers.host ?? "" };
    const identity = this.#poll && this.#identify(this.#poll);
    return this.#poll && identity && { type: "poll", poll: this.#poll, identity };
  }

  goOn(chunk: Buffer): void {
    this.#recording?.add(chunk);
  }

  end(): void {
    if (!this.#recording) return;
    // By another route, it may be another homeserver's by now, or one of another release.
    const route = this.#sleepers.routeOf(this.tenant);
    const isSame = route?.epoch === this.#sentBy?.epoch && route?.revision === this.#sentBy?.revision;
    if (route && isSame && route.state !== "unavailable") this.#recording.end(route);
  }
}
