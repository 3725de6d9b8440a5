/** The extension by which a certificate authority may sign for some names only (RFC 5280, 4.2.1.10), in the form in which our own has it. */
export const NAME_CONSTRAINTS = "2.5.29.30";

const SEQUENCE = 0x30;
const PERMITTED = 0xa0;
const EXCLUDED = 0xa1;
const DNS_NAME = 0x82;
const IP_ADDRESS = 0x87;
/** Address and mask: all of IPv4, all of IPv6. */
const ALL_ADDRESSES = [Buffer.alloc(8), Buffer.alloc(32)];

/** Permits these names and those below them, and no addresses. */
export function encodeNameConstraints(domains: readonly string[]): Buffer {
  const permitted = domains.map((domain) => der(SEQUENCE, der(DNS_NAME, Buffer.from(domain, "ascii"))));
  const excluded = ALL_ADDRESSES.map((range) => der(SEQUENCE, der(IP_ADDRESS, range)));
  return der(SEQUENCE, der(PERMITTED, ...permitted), der(EXCLUDED, ...excluded));
}

/** The permitted names; undefined if there is no such bound in it. */
export function permittedDomains(extension: Buffer): string[] | undefined {
  const [constraints] = elements(extension);
  const permitted = elements(constraints?.content).find(({ tag }) => tag === PERMITTED);
  if (!permitted) return undefined;
  return elements(permitted.content)
    .flatMap(({ content }) => elements(content))
    .filter(({ tag }) => tag === DNS_NAME)
    .map(({ content }) => content.toString("ascii").toLowerCase());
}

export function isWithin(host: string, domains: readonly string[]): boolean {
  return domains.some((domain) => host === domain || host.endsWith(`.${domain.replace(/^\./, "")}`));
}

function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const length = content.length;
  const head = length < 0x80 ? [tag, length] : [tag, 0x82, length >> 8, length & 0xff];
  if (length > 0xffff) throw new Error("the certificate authority has too many names");
  return Buffer.concat([Buffer.from(head), content]);
}

function elements(bytes: Buffer = Buffer.alloc(0)): { tag: number; content: Buffer }[] {
  const found: { tag: number; content: Buffer }[] = [];
  for (let at = 0; at + 2 <= bytes.length;) {
    const first = bytes[at + 1]!;
    const more = first < 0x80 ? 0 : first & 0x7f;
    const length = more === 0 ? first : bytes.readUIntBE(at + 2, more);
    const start = at + 2 + more;
    found.push({ tag: bytes[at]!, content: bytes.subarray(start, start + length) });
    at = start + length;
  }
  return found;
}
