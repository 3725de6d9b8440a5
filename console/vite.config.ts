import { readFileSync } from "node:fs";
import { marked, type Tokens } from "marked";
import { defineConfig, type Plugin } from "vite";

/** The controller whose API a development server uses: `npx vite console`, beside `npm start`. */
const CONTROLLER = process.env["SYNAPSE_SHARDS_SERVER"] ?? "http://127.0.0.1:8010";

const RUNBOOK = /\.md\?runbook$/;

/** Pages of docs/runbooks as HTML, so that they are there at night without internet, too. Their text is our own. */
const runbooks: Plugin = {
  name: "runbooks",
  enforce: "pre",
  async load(id) {
    if (!RUNBOOK.test(id)) return null;
    const renderer = new marked.Renderer();
    renderer.link = function ({ href, tokens }: Tokens.Link): string {
      const text = this.parser.parseInline(tokens);
      const page = /^([A-Za-z]+)\.md$/.exec(href)?.[1];
      return page === undefined ? text : `<a href="/runbooks/${page}">${text}</a>`;
    };
    // What scrolls sideways must be reached by keyboard, too.
    renderer.code = ({ text }: Tokens.Code): string => `<pre tabindex="0"><code>${escaped(text)}</code></pre>`;
    const html = await marked.parse(readFileSync(id.replace(/\?.*$/, ""), "utf8"), { renderer });
    return `export default ${JSON.stringify(html)};`;
  },
};

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

export default defineConfig({
  root: import.meta.dirname,
  plugins: [runbooks],
  build: {
    outDir: "dist",
    emptyOutDir: true,
    // A file of its own for everything: the policy of the pages allows nothing within them.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2023",
    chunkSizeWarningLimit: 1000,
    reportCompressedSize: false,
  },
  server: { proxy: { "/v1": { target: CONTROLLER, changeOrigin: false } } },
});
