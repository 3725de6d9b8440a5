import { readFileSync } from "node:fs";
import { z } from "zod";
import { ChannelStateSchema, type ChannelState } from "../../model/notification.ts";
import type { NotificationStates } from "../../ports/notifications.ts";
import { writeAtomically } from "./files.ts";

const FileSchema = z.object({ channels: z.record(z.string(), ChannelStateSchema) });

/** In one small file: it is written when something was told, or when events came that need not be told. */
export class FileNotificationStates implements NotificationStates {
  readonly #file: string;
  readonly #states: Map<string, ChannelState>;

  constructor(file: string) {
    this.#file = file;
    this.#states = new Map(Object.entries(read(file)));
  }

  read(channel: string): ChannelState | undefined {
    return this.#states.get(channel);
  }

  write(channel: string, state: ChannelState): void {
    this.#states.set(channel, state);
    writeAtomically(this.#file, JSON.stringify({ channels: Object.fromEntries(this.#states) }));
  }
}

/** Nothing where there is no such file, or none that can be read: then it goes on with what is new. */
function read(file: string): Record<string, ChannelState> {
  try {
    return FileSchema.parse(JSON.parse(readFileSync(file, "utf8"))).channels;
  } catch {
    return {};
  }
}
