import { setTimeout as sleep } from "node:timers/promises";
import { messagesOf, type TestUser } from "../../e2e/support/matrix.ts";

/** A user who sends one message after the other, and a device of theirs that listens, while something is done to their homeserver. */
export class Chatter {
  readonly #sender: TestUser;
  readonly #listener: TestUser;
  readonly room: string;
  readonly #sent: string[] = [];
  #talking = false;
  #loop: Promise<void> = Promise.resolve();

  private constructor(sender: TestUser, listener: TestUser, room: string) {
    this.#sender = sender;
    this.#listener = listener;
    this.room = room;
  }

  static async begin(sender: TestUser, listener: TestUser): Promise<Chatter> {
    const { room_id: room } = await sender.client.createRoom({});
    await listener.sync();
    const chatter = new Chatter(sender, listener, room);
    chatter.talk();
    return chatter;
  }

  talk(): void {
    this.#talking = true;
    this.#loop = this.#talk();
  }

  async #talk(): Promise<void> {
    while (this.#talking) {
      const body = `message ${this.#sent.length + 1}`;
      await this.#sender.client.sendTextMessage(this.room, body);
      this.#sent.push(body);
      await sleep(20);
    }
  }

  /** @returns how many messages had been acknowledged */
  get count(): number {
    return this.#sent.length;
  }

  /** Stops talking. @returns what was sent, what the server has, and what failed */
  async end(): Promise<{ sent: string[]; kept: string[]; failures: unknown[] }> {
    this.#talking = false;
    await this.#loop;
    this.#listener.stop();
    const kept = await messagesOf(this.#sender, this.room);
    return { sent: this.#sent, kept, failures: [...this.#sender.failures, ...this.#listener.failures] };
  }
}
