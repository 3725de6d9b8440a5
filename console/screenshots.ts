/**
 * Pictures of the console for the documents, of a cluster that runs: `node bin/run.mjs console/screenshots.ts DATA [DIRECTORY]`, with its data
 * directory. Needs Chromium.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium, type Page } from "playwright-core";
import { z } from "zod";

const [dataDir, directory = join(import.meta.dirname, "../docs/images")] = process.argv.slice(2);
if (dataDir === undefined) throw new Error("usage: screenshots.ts DATA [DIRECTORY]");

const { apiUrl } = z.object({ apiUrl: z.url() }).parse(JSON.parse(readFileSync(join(dataDir, "cluster.json"), "utf8")));
const token = readFileSync(join(dataDir, "api-token"), "utf8").trim();
const NAMES = ["chromium", "chromium-browser", "google-chrome"];
const program = NAMES.map((name) => spawnSync("which", [name]).stdout.toString().trim()).find((path) => path !== "");
if (program === undefined) throw new Error(`none of ${NAMES.join(", ")} is installed`);

/** What is shown of a path, and what is there when it can be taken. */
interface Picture {
  name: string;
  path: (tenant: string, shard: string) => string;
  isReady: (page: Page) => Promise<unknown>;
}

const PICTURES: readonly Picture[] = [
  {
    name: "overview",
    path: () => "/overview",
    isReady: async (page) => {
      await page.getByLabel("Period").selectOption("hour");
      await page.getByText("history --range hour").waitFor();
      await page.locator(".plot canvas").first().waitFor();
    },
  },
  {
    name: "tenants",
    path: () => "/tenants",
    isReady: (page) => page.getByRole("link", { name: /./ }).first().waitFor(),
  },
  { name: "tenant", path: (name) => `/tenants/${name}`, isReady: (page) => page.getByText("What it takes").waitFor() },
  {
    name: "users",
    path: (name) => `/tenants/${name}?tab=users`,
    isReady: (page) => page.getByRole("cell").first().waitFor(),
  },
  { name: "shards", path: () => "/shards", isReady: (page) => page.locator(".box").first().waitFor() },
];

const ItemsSchema = z.object({ items: z.array(z.object({ metadata: z.object({ name: z.string() }) })) });
async function firstOf(kind: "tenants" | "shards"): Promise<string> {
  const answer = await fetch(`${apiUrl}/v1/${kind}`, { headers: { authorization: `Bearer ${token}` } });
  const [first] = ItemsSchema.parse(await answer.json()).items;
  if (!first) throw new Error(`the cluster has no ${kind}`);
  return first.metadata.name;
}

const [tenant, shard] = [await firstOf("tenants"), await firstOf("shards")];
mkdirSync(directory, { recursive: true });
// Its sandbox needs privileges that root in a container has not; what it opens here is our own.
const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox", "--disable-gpu"] });
try {
  for (const theme of ["light", "dark"] as const) {
    const context = await browser.newContext({
      baseURL: apiUrl,
      colorScheme: theme,
      viewport: { width: 1280, height: 860 },
      reducedMotion: "reduce",
    });
    const page = await context.newPage();
    await page.goto("/");
    await page.locator("input[name=token]").fill(token);
    await page.getByRole("button", { name: "Sign in" }).last().click();
    await page.getByRole("navigation", { name: "Screens" }).waitFor();
    for (const { name, path, isReady } of PICTURES) {
      await page.goto(path(tenant, shard));
      await isReady(page);
      await page.getByText("Live", { exact: true }).waitFor();
      await page.evaluate("document.fonts.ready.then(() => undefined)");
      const file = join(directory, `console-${name}-${theme}.png`);
      await page.screenshot({ path: file, fullPage: name === "overview" });
      process.stdout.write(`${file}\n`);
    }
    await context.close();
  }
} finally {
  await browser.close();
}
