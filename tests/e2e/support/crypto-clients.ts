import { MemoryStore, type MatrixEvent, MatrixEventEvent, RoomEvent } from "matrix-js-sdk";
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";
import { until } from "../../support/patience.ts";
import type { TestUser } from "./matrix.ts";

/** A client as web clients are: with the Rust implementation of encryption. Before it syncs. */
export async function withCrypto(user: TestUser): Promise<TestUser> {
  await user.client.initRustCrypto({ useIndexedDB: false });
  return user;
}

/** Begins to sync by sliding sync, and waits until the room is there. @returns what ends it */
export async function slide(user: TestUser, roomId: string, pollMs: number): Promise<() => void> {
  const { client } = user;
  client.store = new MemoryStore({});
  const room = { timeline_limit: 50, required_state: [["*", "*"]] };
  const lists = new Map([["all", { ranges: [[0, 9]], ...room }]]);
  const sliding = new SlidingSync(client.getHomeserverUrl(), lists, room, client, pollMs);
  await client.startClient({ slidingSync: sliding });
  await until("the room is there", () => client.getRoom(roomId) !== null);
  return () => sliding.stop();
}

/** Bodies of a room's encrypted messages as they could be read, each as often as it came by sync. */
export function read(user: TestUser, roomId: string): string[] {
  const bodies: string[] = [];
  const seen = (event: MatrixEvent): void => {
    const decrypted = (): void => {
      // Its key may come after it; then it is decrypted once more.
      if (event.isDecryptionFailure()) event.once(MatrixEventEvent.Decrypted, decrypted);
      else bodies.push(String(event.getContent()["body"]));
    };
    if (event.getRoomId() !== roomId || event.status || event.getWireType() !== "m.room.encrypted") return;
    if (
      event.isDecryptionFailure() ||
      event.isBeingDecrypted() ||
      (event.isEncrypted() && event.getClearContent() === null)
    )
      event.once(MatrixEventEvent.Decrypted, decrypted);
    else decrypted();
  };
  user.client.on(RoomEvent.Timeline, seen);
  return bodies;
}
