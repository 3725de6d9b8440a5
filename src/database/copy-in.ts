import { Query, type Client, type Submittable } from "pg";
import type { Bytes } from "../ports/backups.ts";

/** The part of pg's connection that a COPY needs; its types do not have it. */
interface CopyConnection {
  stream: {
    writableNeedDrain: boolean;
    once(event: "drain" | "close", listener: () => void): void;
    off(event: "drain" | "close", listener: () => void): void;
  };
  sendCopyFromChunk(chunk: Uint8Array): void;
  endCopyFrom(): void;
  sendCopyFail(message: string): void;
}

/**
 * Runs `COPY … FROM stdin` with rows as they come, no faster than the server takes them.
 * @throws what the rows fail of, or the server says
 */
export async function copyIn(client: Client, statement: string, rows: Bytes): Promise<void> {
  const asked = Promise.withResolvers<CopyConnection>();
  const ended = Promise.withResolvers<void>();
  const query = new Query(statement, (error: Error | null | undefined) => {
    if (error) ended.reject(error);
    else ended.resolve();
  });
  Object.assign(query, { handleCopyInResponse: (connection: CopyConnection) => asked.resolve(connection) });
  ended.promise.catch((error: unknown) => asked.reject(error));
  client.query(query as unknown as Submittable);
  const connection = await asked.promise;
  let isOver = false;
  let goOn = () => {};
  const note = () => {
    isOver = true;
    goOn();
  };
  // Once: a promise keeps what waits for it until it is settled, and there are as many waits as the rows are long.
  ended.promise.then(note, note);
  const drained = () =>
    new Promise<void>((resolve) => {
      const { stream } = connection;
      goOn = () => {
        stream.off("drain", goOn);
        stream.off("close", goOn);
        resolve();
      };
      stream.once("drain", goOn);
      stream.once("close", goOn);
    });
  try {
    for await (const chunk of rows) {
      if (isOver) break;
      connection.sendCopyFromChunk(chunk);
      if (connection.stream.writableNeedDrain) await drained();
    }
  } catch (error) {
    if (!isOver) connection.sendCopyFail("its source has failed");
    await ended.promise.catch(() => {});
    throw error;
  }
  if (!isOver) connection.endCopyFrom();
  await ended.promise;
}
