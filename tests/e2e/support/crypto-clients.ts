import { MemoryStore, type MatrixClient } from "matrix-js-sdk";
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";
import type { TestUser } from "./matrix.ts";

/** A client as web clients are: with the Rust implementation of encryption. */
export async function withCrypto(user: TestUser): Promise<TestUser> {
  await user.client.initRustCrypto({ useIndexedDB: false });
  return user;
}

/** Begins to sync by sliding sync, and waits until the rooms are in. */
export async function slide(user: TestUser, roomId: string, pollMs: number): Promise<void> {
  const { client } = user;
  client.store = new MemoryStore({});
  const list = { ranges: [[0, 9]], timeline_limit: 50, required_state: [["*", "*"]] };
  const sliding = new SlidingSync(
    client.getHomeserverUrl(),
    new Map([["all", list]]),
    { timeline_limit: 50, required_state: [["*", "*"]] },
    client,
    pollMs,
  );
  await client.startClient({ slidingSync: sliding });
  await untilRoom(client, roomId);
}

async function untilRoom(client: MatrixClient, roomId: string): Promise<void> {
  const { until } = await import("../../support/patience.ts");
  await until("the room is there", () => client.getRoom(roomId) !== null);
}
