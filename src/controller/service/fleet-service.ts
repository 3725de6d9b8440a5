import { UserError } from "../../model/errors.ts";
import { DEFAULT_ROLLOUT, newFleetStatus, type Fleet, type RolloutPolicy } from "../../model/fleet.ts";
import { modify } from "../../ports/store.ts";
import type { ControllerContext } from "../context.ts";
import { isReleaseThere } from "./releases.ts";

/** There is at most one, of this name. */
const NAME = "fleet";

export interface FleetChange {
  release?: string;
  /** Sets these and leaves the others. */
  rollout?: Partial<RolloutPolicy>;
}

/** The release that tenants follow, and how it is brought to them. */
export interface FleetService {
  /** @throws UserError NotFound */
  fleet(): Promise<Fleet>;
  /** Makes it where there is none. @throws UserError Conflict where somebody else owns it, UnknownRelease, UnsupportedRelease */
  changeFleet(change: FleetChange): Promise<Fleet>;
  /** Brings back the release before the present one. @throws UserError Conflict where there is none */
  rollBackFleet(): Promise<Fleet>;
}

export interface FleetServiceOptions {
  /** What to do instead, where the fleet is not changed through the API. */
  changedBy?: string;
}

export class StoreFleetService implements FleetService {
  readonly #context: ControllerContext;
  readonly #changedBy: string | undefined;

  constructor(context: ControllerContext, { changedBy }: FleetServiceOptions = {}) {
    this.#context = context;
    this.#changedBy = changedBy;
  }

  async fleet(): Promise<Fleet> {
    const fleet = await this.#context.store.get("Fleet", NAME);
    if (fleet) return fleet;
    throw new UserError("NotFound", `there is no fleet yet; ${this.#changedBy ?? "give it a release to make one"}`);
  }

  async changeFleet({ release, rollout }: FleetChange): Promise<Fleet> {
    this.#refuseOwned();
    const { store } = this.#context;
    // Installing it may take minutes, and is the concern of its first shard.
    if (release !== undefined) await isReleaseThere(this.#context, release);
    const changed = await modify(store, "Fleet", NAME, ({ spec }) => {
      if (release !== undefined) spec.release = release;
      Object.assign(spec.rollout, rollout);
    });
    if (changed) return changed;
    if (release === undefined) return this.fleet();
    return store.create("Fleet", NAME, { release, rollout: { ...DEFAULT_ROLLOUT, ...rollout } }, newFleetStatus());
  }

  async rollBackFleet(): Promise<Fleet> {
    this.#refuseOwned();
    const { spec, status } = await this.fleet();
    const { previousRelease } = status;
    if (previousRelease === undefined || previousRelease === spec.release)
      throw new UserError("Conflict", `there is no release to go back to: the fleet has had none but ${spec.release}`);
    return this.changeFleet({ release: previousRelease, rollout: { paused: false } });
  }

  #refuseOwned(): void {
    if (this.#changedBy !== undefined) throw new UserError("Conflict", this.#changedBy);
  }
}
