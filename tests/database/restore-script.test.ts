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

it("leaves out what newer servers note of columns for themselves, and keeps what else is said of them", async () => {
  const script = `ALTER TABLE ONLY public.a ALTER COLUMN b SET (pg_attver=26587256);
ALTER TABLE ONLY public.a ALTER COLUMN c SET (pg_attver=26587256, n_distinct=-0.02);
ALTER TABLE ONLY public."odd
name" ALTER COLUMN c SET (n_distinct=-0.02, pg_attver=26587256, n_distinct_inherited=3);
ALTER TABLE ONLY public.a ALTER COLUMN d SET (n_distinct=5);
`;
  expect(await partsOf(pieces(script, 50))).toEqual([
    {
      sql: `ALTER TABLE ONLY public.a ALTER COLUMN c SET (n_distinct=-0.02);
ALTER TABLE ONLY public."odd
name" ALTER COLUMN c SET (n_distinct=-0.02, n_distinct_inherited=3);
ALTER TABLE ONLY public.a ALTER COLUMN d SET (n_distinct=5);`,
    },
  ]);
});

it("keeps names, defaults and functions as they are, whatever is in them", async () => {
  const trap =
    "\n\n--\n-- Name: x; Type: TABLE; Schema: public; Owner: -\n\nSET transaction_timeout = 0;\nCOPY a FROM stdin;\n";
  const texts = [
    `CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $_$${trap} SELECT '$1 " /*' $_$;`,
    `CREATE FUNCTION public.g() RETURNS text LANGUAGE sql AS $$${trap}$_$ $$;`,
    `ALTER TABLE public.a ALTER COLUMN b SET DEFAULT 'it''s ${trap} \\';`,
    `ALTER TABLE public.a ALTER COLUMN b SET DEFAULT E'it\\'s ''${trap} \\\\';`,
    `CREATE VIEW public."odd ""${trap}" AS SELECT a$$b$$ FROM c;`,
    `/* a /* comment */ ${trap} ' */ SELECT 1;`,
    `SELECT 1; -- it's`,
  ];
  for (const text of texts)
    expect(await partsOf(pieces(`${text}\nCOPY public.a (b) FROM stdin;\n1\n\\.\n`, 7))).toEqual([
      { sql: text },
      { copy: "COPY public.a (b) FROM stdin;", rows: "1\n" },
    ]);
  const odd = `COPY public."a${trap}" (b) FROM stdin;`;
  expect(await partsOf(pieces(`${odd}\n1\n\\.\n`, 9))).toEqual([{ copy: odd, rows: "1\n" }]);
  const escaping = `SET standard_conforming_strings = off;\nSELECT 'it\\'s${trap}';`;
  expect(await partsOf(pieces(escaping, 9))).toEqual([{ sql: escaping }]);
});

it("sends rows that are statements before they are too many", async () => {
  const insert = `INSERT INTO public.a VALUES ('${"x".repeat(1000)}\n');\n`;
  const parts = (await partsOf(pieces(insert.repeat(5000), 70_000))) as { sql: string }[];
  expect(parts.length).toBeGreaterThan(3);
  expect(parts.map(({ sql }) => sql).join("\n")).toBe(insert.repeat(5000).trimEnd());
});

it("refuses a dump that is not in UTF-8", async () => {
  async function* latin(): Bytes {
    yield Buffer.from('CREATE TABLE public."\xe4" ();\n', "latin1");
  }
  await expect(partsOf(latin())).rejects.toThrow("not in UTF-8");
});
