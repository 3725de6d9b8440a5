import { createServer, Packet, type DnsHandler } from "dns2";
import { freePort } from "./free-port.ts";

type Answers = {
  A?: string[];
  AAAA?: string[];
  TXT?: string[];
  SRV?: { target: string; port: number; priority?: number }[];
};

interface Writer {
  write(value: number, bits: number): void;
}

// The library compresses the target, which RFC 2782 forbids, and resolvers refuse.
(Packet.Resource as unknown as { SRV: { encode(record: Record<string, unknown>, to: Writer): void } }).SRV.encode = (
  { priority, weight, port, target },
  to,
) => {
  for (const value of [priority, weight, port]) to.write(Number(value), 16);
  for (const label of `${String(target)}.`.split(".")) {
    to.write(label.length, 8);
    for (const byte of Buffer.from(label)) to.write(byte, 8);
  }
};

/** A real DNS server on loopback that knows what a test tells it. */
export class DnsServer {
  /** By name in lower case; whoever asks for another is told that there is none. */
  readonly zone = new Map<string, Answers>();
  readonly asked: string[] = [];
  /** Answers with SERVFAIL. */
  isBroken = false;
  /** HOST:PORT. */
  address = "";
  readonly #handle: DnsHandler = (request, send) => {
    const response = Packet.createResponseFromRequest(request);
    const [question] = request.questions;
    const name = question!.name.toLowerCase();
    this.asked.push(name);
    const found = this.zone.get(name);
    if (this.isBroken) response.header.rcode = 2;
    else if (!found) response.header.rcode = 3;
    else response.answers.push(...(recordsOf(question!.name, question!.type, found) as never[]));
    void send(response);
  };
  readonly #tcp = createServer({ tcp: true, handle: this.#handle });
  readonly #udp = createServer({ udp: true, handle: this.#handle });

  /** By TCP and UDP at one port. */
  static async start(): Promise<DnsServer> {
    const server = new DnsServer();
    const port = await freePort();
    await server.#tcp.listen({ tcp: { port, address: "127.0.0.1" } });
    await server.#udp.listen({ udp: { port, address: "127.0.0.1" } });
    server.address = `127.0.0.1:${port}`;
    return server;
  }

  async stop(): Promise<void> {
    await Promise.all([this.#tcp.close(), this.#udp.close()]);
  }
}

function recordsOf(name: string, type: number, { A = [], AAAA = [], TXT = [], SRV = [] }: Answers): object[] {
  const { TYPE, CLASS } = Packet;
  const common = { name, class: CLASS.IN, ttl: 1 };
  if (type === TYPE.A) return A.map((address) => ({ ...common, type, address }));
  if (type === TYPE.AAAA) return AAAA.map((address) => ({ ...common, type, address }));
  if (type === TYPE.TXT) return TXT.map((data) => ({ ...common, type, data }));
  if (type === TYPE.SRV)
    return SRV.map(({ priority = 10, ...rest }) => ({ ...common, type, priority, weight: 5, ...rest }));
  return [];
}
