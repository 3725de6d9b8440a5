/** Reads a body of text that somebody else decides the length of. @throws Error with `tooLong` as soon as it is more than `mostBytes` */
export async function textWithin(body: AsyncIterable<Uint8Array>, mostBytes: number, tooLong: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > mostBytes) throw new Error(tooLong);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
