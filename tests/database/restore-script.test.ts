import { expect, it } from "vitest";
import { scriptParts } from "../../src/database/restore-script.ts";
import type { Bytes } from "../../src/ports/backups.ts";

const SCRIPT = `--
-- PostgreSQL database dump
--

\\restrict abc123

SET statement_timeout = 0;
SET transaction_timeout = 0;
CREATE TABLE public.a (
    id integer
);
COPY public.a (id, "odd ""name""") FROM stdin;
1\t\\\\.
\\N\tÄ ✓
\\.


COPY public.empty (id) FROM stdin;
\\.


ALTER TABLE ONLY public.a ADD CONSTRAINT a_pkey PRIMARY KEY (id);

\\unrestrict abc123

`;

async function* pieces(text: string, size: number): Bytes {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function partsOf(script: Bytes): Promise<object[]> {
  const parts: object[] = [];
  for await (const part of scriptParts(script)) {
    if ("sql" in part) parts.push(part);
    else {
      const chunks: Uint8Array[] = [];
      for await (const chunk of part.rows) chunks.push(Buffer.from(chunk));
      parts.push({ copy: part.copy, rows: Buffer.concat(chunks).toString() });
    }
  }
  return parts;
}

it("takes a script apart wherever its pieces are cut", async () => {
  for (let size = 1; size < 80; size++)
    expect(await partsOf(pieces(SCRIPT, size))).toEqual([
      { sql: "SET statement_timeout = 0;\nCREATE TABLE public.a (\n    id integer\n);" },
      { copy: 'COPY public.a (id, "odd ""name""") FROM stdin;', rows: "1\t\\\\.\n\\N\tÄ ✓\n" },
      { copy: "COPY public.empty (id) FROM stdin;", rows: "" },
      { sql: "ALTER TABLE ONLY public.a ADD CONSTRAINT a_pkey PRIMARY KEY (id);" },
    ]);
});

it("refuses a script that ends in the midst of a table", async () => {
  await expect(partsOf(pieces("COPY public.a (id) FROM stdin;\n1\n2", 7))).rejects.toThrow("in the midst of a table");
});

it("refuses statements without end, and holds no more of them", async () => {
  let sent = 0;
  async function* endless(): Bytes {
    for (;;) {
      sent += 1;
      yield Buffer.alloc(1024 ** 2, "a");
    }
  }
  await expect(partsOf(endless())).rejects.toMatchObject({ code: "InvalidInput" });
  expect(sent).toBeLessThan(70);
});

it("has a part for what makes one object, which may take its time", async () => {
  const script = `SET check_function_bodies = false;

--
-- Name: a a_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.a
    ADD CONSTRAINT a_pkey PRIMARY KEY (id);


--
-- Name: b; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX b ON public.a USING btree (id);
`;
  expect(await partsOf(pieces(script, 50))).toEqual([
    { sql: "SET check_function_bodies = false;" },
    { sql: "ALTER TABLE ONLY public.a\n    ADD CONSTRAINT a_pkey PRIMARY KEY (id);" },
    { sql: "CREATE INDEX b ON public.a USING btree (id);" },
  ]);
});
