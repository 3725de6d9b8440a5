import { Readable } from "node:stream";
import tar from "tar-stream";
import { isPlainPath, type ArchiveFile } from "../model/archive.ts";
import { messageOf, UserError } from "../model/errors.ts";

/** What the library's streams have in common with Node's, as far as it is used here. */
interface Sink {
  write(chunk: Uint8Array): boolean;
  end(): void;
  once(event: "drain" | "close", listener: () => void): unknown;
  removeListener(event: "drain" | "close", listener: () => void): unknown;
  readonly destroyed: boolean;
}

/** A tar of files, made as it is read, below a directory of that name. It fails where a file has another size than was said. */
export function packed(directory: string, files: AsyncIterable<ArchiveFile>): Readable {
  const pack = tar.pack();
  // Whoever reads hears of it, or has gone.
  pack.on("error", () => {});
  const fill = async () => {
    for await (const { path, bytes, content } of files) {
      const { promise: written, resolve, reject } = Promise.withResolvers<void>();
      const header = { name: `${directory}/${path}`, size: bytes, mode: 0o600 };
      const entry = pack.entry(header, (error) => (error ? reject(error) : resolve()));
      written.catch(() => {});
      entry.on("error", () => {});
      await pour(content, entry as unknown as Sink);
      if (pack.destroyed) throw new Error("nobody reads the archive any more");
      await written;
    }
    pack.finalize();
  };
  fill().catch((error: unknown) => pack.destroy(error as Error));
  return Readable.from(pack as AsyncIterable<Uint8Array>, { objectMode: false });
}

/**
 * Files of a tar, one after the other: the next one comes when the one before was read. Directories are passed over.
 * @throws UserError InvalidInput where it is no tar, is cut short, or has what leads out of the directory it is unpacked in
 */
export async function* unpacked(source: AsyncIterable<Uint8Array>): AsyncGenerator<ArchiveFile, void, undefined> {
  const extract = tar.extract();
  extract.on("error", () => {});
  let broken: unknown;
  /** What the source says of itself says more than that the archive breaks off. */
  const explained = (error: unknown): unknown =>
    broken ??
    (error instanceof UserError
      ? error
      : new UserError("InvalidInput", `the archive is damaged or cut short: ${messageOf(error)}`, { cause: error }));
  async function* contentOf(entry: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    try {
      yield* entry;
    } catch (error) {
      throw explained(error);
    }
  }
  const read = pour(source, extract as unknown as Sink).catch((error: unknown) => {
    broken = error;
    extract.destroy(error as Error);
  });
  try {
    for await (const entry of extract) {
      const { name, size, type } = entry.header;
      if (type === "directory") {
        entry.resume();
        continue;
      }
      const path = name.replace(/^(\.\/)?[^/]+\//, "");
      if (type !== "file" && type !== "contiguous-file")
        throw new UserError("InvalidInput", `the archive has ${name}, which is a ${type}; allowed are files`);
      if (path === name || !isPlainPath(path))
        throw new UserError("InvalidInput", `the archive has ${name}, which is no path below one directory`);
      yield { path, bytes: size, content: contentOf(entry as AsyncIterable<Uint8Array>) };
    }
  } catch (error) {
    throw explained(error);
  } finally {
    extract.destroy();
    await read;
  }
}

/** The library's streams are not Node's, whose `pipeline` does not see them end. */
async function pour(source: AsyncIterable<Uint8Array>, sink: Sink): Promise<void> {
  for await (const chunk of source) {
    if (sink.destroyed) return;
    if (!sink.write(chunk)) await roomIn(sink);
  }
  if (!sink.destroyed) sink.end();
}

function roomIn(sink: Sink): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      sink.removeListener("drain", done);
      sink.removeListener("close", done);
      resolve();
    };
    sink.once("drain", done);
    sink.once("close", done);
    if (sink.destroyed) done();
  });
}
