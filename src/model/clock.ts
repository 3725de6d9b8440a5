/**
 * Time, passed in to whatever waits or writes down a time. A machine's clock may be set back, by hand or by NTP: then waits by it would
 * last as much longer, and ages would be negative.
 */
export interface Clock {
  /** Unix time in milliseconds that never goes back: for times that are written down, and compared with each other. */
  now(): number;
  /** Unix time in milliseconds as the machine has it: for what is bound to the hour of the day. */
  wall(): number;
  /** Milliseconds that passed since a time that was written down, perhaps by a process before this one, whose clock was ahead. */
  age(time: string): number;
  /** When something happened, in the order of `now`: of a time that is yet to come, the beginning of this process. */
  past(time: string): number;
  /** When a wait ends, in the order of `now`: a wait that was never meant to exceed `longest` does not. */
  end(time: string, longest: number): number;
  /** Milliseconds until then; 0 when it is over, or was never set. */
  until(time: string | undefined, longest: number): number;
  /** Runs something later. @returns what calls it off */
  after(milliseconds: number, run: () => void): () => void;
}

export interface ClockParts {
  wall(): number;
  /** Milliseconds of a clock that cannot be set. */
  monotonic(): number;
  after(milliseconds: number, run: () => void): () => void;
}

const SYSTEM: ClockParts = {
  wall: () => Date.now(),
  monotonic: () => performance.now(),
  after: (milliseconds, run) => {
    const timer = setTimeout(run, milliseconds);
    return () => clearTimeout(timer);
  },
};

/**
 * Follows the machine's clock forwards, and a monotonic one where that goes back. Not a monotonic one alone: that stands still while the
 * machine is suspended.
 */
export class SteadyClock implements Clock {
  readonly #parts: ClockParts;
  readonly #begunAt: number;
  #last: number;
  #lastMonotonic: number;

  constructor(parts: ClockParts = SYSTEM) {
    this.#parts = parts;
    this.#begunAt = parts.wall();
    this.#last = this.#begunAt;
    this.#lastMonotonic = parts.monotonic();
  }

  now(): number {
    const monotonic = this.#parts.monotonic();
    this.#last = Math.max(this.#parts.wall(), this.#last + (monotonic - this.#lastMonotonic));
    this.#lastMonotonic = monotonic;
    return this.#last;
  }

  wall(): number {
    return this.#parts.wall();
  }

  age(time: string): number {
    return this.now() - this.past(time);
  }

  past(time: string): number {
    const at = Date.parse(time);
    return at <= this.now() ? at : this.#begunAt;
  }

  end(time: string, longest: number): number {
    const at = Date.parse(time);
    return at - this.now() <= longest ? at : this.#begunAt + longest;
  }

  until(time: string | undefined, longest: number): number {
    return time === undefined ? 0 : Math.max(0, this.end(time, longest) - this.now());
  }

  after(milliseconds: number, run: () => void): () => void {
    return this.#parts.after(milliseconds, run);
  }
}

/** As times are written down: ISO 8601, in UTC. */
export function timeText(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}
