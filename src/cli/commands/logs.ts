import type { Client } from "../client.ts";

/** Copies a log to stdout, as fast as stdout takes it. */
export async function printLines(
  client: Client,
  path: string,
  options: { follow?: boolean; tail?: number },
): Promise<void> {
  for await (const line of client.lines(path, { query: { follow: options.follow, tail: options.tail } })) {
    await write(`${line}\n`);
  }
}

/** Waits while stdout's reader is slower than the log. */
export async function write(text: string): Promise<void> {
  if (process.stdout.write(text)) return;
  await new Promise<void>((resolve) => void process.stdout.once("drain", resolve));
}
